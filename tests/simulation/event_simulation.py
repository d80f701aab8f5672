"""An event simulation of pipelines, which shares no code with the laws that are held against it.

It knows only in which order each stage runs its passes, and that a pass waits for those that feed it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple


class Pass(NamedTuple):
    """A forward pass "F", a backward pass "B" or weight gradients "W" of a micro-batch in one of the model's chunks."""

    kind: str
    batch: int
    chunk: int


Work = tuple[Pass, ...]
"""Passes that a stage runs as one: all that wait for any of them wait for the last."""

Seconds = Mapping[str, Sequence[float]]
"""By kind, what a pass of each of the model's chunks takes."""


@dataclass(frozen=True, slots=True)
class Run:
    """When each stage began its first and ended its last pass."""

    began_s: tuple[float, ...]
    ended_s: tuple[float, ...]

    @property
    def step_s(self) -> float:
        return max(self.ended_s)

    @property
    def longest_stage_s(self) -> float:
        return max(ended - began for began, ended in zip(self.began_s, self.ended_s, strict=True))


def alone(*order: tuple[str, int, int]) -> list[Work]:
    return [(Pass(*what),) for what in order]


def simulated(orders: Sequence[Sequence[Work]], seconds: Seconds, *, hidden_s: float = 0.0) -> Run:
    """Run each stage's order as soon as what feeds it is there; a forward with a backward pass hides `hidden_s`."""
    last = len(seconds["F"]) - 1
    ended: dict[Pass, float] = {}
    began_s: list[float | None] = [None] * len(orders)
    free_s = [0.0] * len(orders)
    done = [0] * len(orders)
    while any(count < len(order) for count, order in zip(done, orders, strict=True)):
        before = sum(done)
        for stage, order in enumerate(orders):
            while done[stage] < len(order):
                work = order[done[stage]]
                feeds = [feed for what in work for feed in _feeds(what, last) if feed not in work]
                if not all(feed in ended for feed in feeds):
                    break
                start_s = max([free_s[stage], *(ended[feed] for feed in feeds)])
                pair = {"F", "B"} <= {what.kind for what in work}
                took_s = sum(seconds[what.kind][what.chunk] for what in work) - (hidden_s if pair else 0.0)
                began_s[stage] = start_s if began_s[stage] is None else began_s[stage]
                free_s[stage] = start_s + took_s
                ended.update(dict.fromkeys(work, free_s[stage]))
                done[stage] += 1
        assert sum(done) > before, "the orders deadlock"
    return Run(tuple(began or 0.0 for began in began_s), tuple(free_s))


def _feeds(what: Pass, last: int) -> list[Pass]:
    if what.kind == "F":
        return [Pass("F", what.batch, what.chunk - 1)] if what.chunk else []
    if what.kind == "B" and what.chunk < last:
        return [Pass("B", what.batch, what.chunk + 1)]
    return [Pass("F" if what.kind == "B" else "B", what.batch, what.chunk)]


def most_held(order: Sequence[Work], *, until: str) -> int:
    """Count the most forward passes of which the pass that lets go of activations, "B" or "W", hasn't run."""
    change = {"F": 1, "B": 0, "W": 0} | {until: -1}
    return max(accumulate(sum(change[what.kind] for what in work) for work in order))
