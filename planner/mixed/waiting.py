"""Configurations of pipelines through islands that wait to be cut into stages, best bound first."""

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import numpy as np

from meshwright.planner.mixed.chain_configs import Configurations
from meshwright.planner.mixed.chain_weights import weighted_bound_s
from meshwright.planner.mixed.shapes import Shape

# Configurations that get their bounds by weights at once.
REFINED = 512


class Waiting(NamedTuple):
    """A configuration: the row of one way of messages of a shape. refined: its bound is by weights too.

    They come in the order of their fields.
    """

    bound_s: float
    refined: bool
    shape: Shape
    way: int
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingConfigurations:
    """Those that wait, a heap. batch: sequences of a step; left: the share of its work that each is left with."""

    batch: int
    left: float
    every: dict[Shape, tuple[Configurations, ...]] = field(default_factory=dict)
    heap: list[Waiting] = field(default_factory=list)

    def add(self, shape: Shape, every: tuple[Configurations, ...]) -> None:
        """Let the configurations of a shape wait, with each way of messages."""
        self.every[shape] = every
        for way, found in enumerate(every):
            bounds_s = self.left * found.bound_s(np.ceil(self.batch / found.sequences))
            self.heap.extend(
                Waiting(bound_s=float(bound), refined=False, shape=shape, way=way, row=row)
                for row, bound in enumerate(bounds_s)
            )
        heapify(self.heap)

    def configurations(self, one: Waiting) -> Configurations:
        """Give those of which one is a row."""
        return self.every[one.shape][one.way]

    def pop(self) -> Waiting:
        """Give the one with the best bound, which waits no longer."""
        return heappop(self.heap)

    def refine(self, first: Waiting, *, below_s: float) -> None:
        """Give one, and the next of those that wait below a step time, their bounds by weights; they wait again."""
        taken: list[Waiting] = [first]
        again: list[Waiting] = []
        while self.heap and len(taken) < REFINED and self.heap[0].bound_s < below_s:
            one = heappop(self.heap)
            (again if one.refined else taken).append(one)
        by_way: dict[tuple[Shape, int], list[Waiting]] = {}
        for one in taken:
            by_way.setdefault((one.shape, one.way), []).append(one)
        weighed = []
        for own in by_way.values():
            found = self.configurations(own[0])
            weighed.append(found.weighed(np.array([one.row for one in own]), np.ceil(self.batch / found.sequences)))
        bounds_s = (self.left * weighted_bound_s(weighed)).tolist()
        ordered = [one for own in by_way.values() for one in own]
        again += [
            one._replace(bound_s=max(one.bound_s, bound), refined=True)
            for one, bound in zip(ordered, bounds_s, strict=True)
        ]
        for one in again:
            heappush(self.heap, one)
