"""What "best" means, and the order of equals.

    time     least step time
    memory   least peak memory among the layouts at most 10 % slower than the fastest
    cost     least price of a token, over the whole cluster and its halves, quarters, ... of whole nodes

Equals under the objective: less time, less memory, then lower values in the order of front.py's TIE_COLUMNS. Times and
bytes are compared rounded to nine significant digits, so that the last bits of another machine's arithmetic decide
nothing.
"""

import math
from enum import StrEnum

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable
from meshwright.planner.layout.front import Front, mesh_numbers, tie_columns

SLOWER_BY_AT_MOST = 0.10


class Objective(StrEnum):
    """What the search makes small."""

    TIME = "time"
    COST = "cost"
    MEMORY = "memory"


def rounded(values: FloatArray) -> FloatArray:
    """Give positive values at nine significant digits, shape as given."""
    scale = 10.0 ** (8 - np.floor(np.log10(values)))
    return np.round(values * scale) / scale


def values(objective: Objective, front: Front) -> FloatArray:
    """Give what the objective makes small, [layouts]: seconds, device-seconds of a step (its price), or bytes."""
    if objective is Objective.MEMORY:
        return front.peak_bytes
    if objective is Objective.COST:
        return rounded(world_sizes(front.layouts) * front.step_time_s)
    return front.step_time_s


def best_first(objective: Objective, front: Front) -> Front:
    """Give the layouts that the objective admits, best first."""
    admitted = front
    if objective is Objective.MEMORY:
        admitted = front.take(np.flatnonzero(front.step_time_s <= _slowest_s(front)))
    keys = (values(objective, admitted), admitted.step_time_s, admitted.peak_bytes, *tie_columns(admitted.layouts))
    return admitted.take(np.lexsort(keys[::-1]))


def bar_s(objective: Objective, front: Front | None, *, top: int, devices: int) -> float:
    """Give the step time in seconds above which a layout of so many devices is neither the best nor a runner-up.

    Args:
        objective: what is asked.
        front: what has been found, of whatever size; None if nothing has, which leaves the bar at infinity.
        top: how many runners-up are asked for, each of another mesh.
        devices: those of the layouts to come.

    """
    if front is None:
        return math.inf
    if objective is Objective.MEMORY:
        return _slowest_s(front)
    mesh = mesh_numbers(front.layouts)
    least = np.full(mesh.max() + 1, np.inf)
    np.minimum.at(least, mesh, values(objective, front))
    last = float(np.partition(least, top)[top]) if len(least) > top else math.inf
    return last / devices if objective is Objective.COST else last


def bound_value(objective: Objective, bound_s: float, *, devices: int) -> float:
    """Give the least that the objective can come to where no step of so many devices is shorter than `bound_s`.

    The memory of slower layouts may be anything from 0 bytes.
    """
    return {Objective.TIME: bound_s, Objective.COST: devices * bound_s, Objective.MEMORY: 0.0}[objective]


def _slowest_s(front: Front) -> float:
    return (1 + SLOWER_BY_AT_MOST) * float(front.step_time_s.min())


def world_sizes(layouts: LayoutTable) -> IntArray:
    """Give the devices of each layout, shape [layouts]."""
    return layouts.tensor_parallel * layouts.context_parallel * layouts.pipeline_parallel * layouts.data_parallel
