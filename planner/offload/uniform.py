"""Decisions that treat all layers alike, as systems without a plan a layer do."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from meshwright.costmodels.tensor_classes import TensorClass
from meshwright.planner.offload.decision import Choice, Choices, Decision
from meshwright.planner.offload.memory_law import memory_of
from meshwright.planner.offload.optimizer_law import Shares
from meshwright.planner.offload.problem import CLASSES, INPUT, Problem

ON_DEVICE = Shares(cpu=0.0, streamed=0.0, resident=1.0)
ON_HOST = Shares(cpu=1.0, streamed=0.0, resident=0.0)


def uniform(problem: Problem, by_class: dict[TensorClass, Choice], *, default: Choice = Choice.KEEP) -> Choices:
    """Give the same choice for a class on all layers; what can't be computed again is kept."""
    row = np.array([by_class.get(name, default) for name in CLASSES], dtype=np.int8)
    choices = np.tile(row, (len(problem.layers), 1))
    choices[(choices == Choice.RECOMPUTE) & ~problem.again] = Choice.KEEP
    return choices


def decided(
    problem: Problem,
    choices: Choices,
    *,
    shares: Shares = ON_DEVICE,
    streamed: bool = False,
    whole: bool = False,
    overlapped: bool = True,
) -> Decision:
    """Give a decision about parameters that all stream, or none."""
    streams = np.where(problem.layers.weight_bytes > 0, float(streamed), 0.0)
    return Decision(choices=choices, streamed=streams, shares=shares, whole=whole, overlapped=overlapped)


def kept(problem: Problem) -> Choices:
    """Give the choices of keeping everything."""
    return uniform(problem, {})


def checkpointed(problem: Problem, *, inputs: Choice = Choice.KEEP) -> Choices:
    """Give the choices of computing all but the layers' inputs again."""
    return uniform(problem, {CLASSES[INPUT]: inputs}, default=Choice.RECOMPUTE)


def leanest(problem: Problem) -> Decision:
    """Give the decision that takes the least device memory, whatever the host has: all leaves or is computed again."""
    return min(_lean(problem), key=lambda decision: memory_of(problem, decision).device)


def _lean(problem: Problem) -> Iterator[Decision]:
    for row in product((Choice.OFFLOAD, Choice.RECOMPUTE), repeat=len(CLASSES) - 1):
        by_class = dict(zip(CLASSES[1:], row, strict=True)) | {CLASSES[INPUT]: Choice.OFFLOAD}
        choices = uniform(problem, by_class)
        for streamed in (False, True) if problem.streamable else (False,):
            yield decided(problem, choices, shares=ON_HOST, streamed=streamed)
