"""What "best" means, and the order of equals.

    time     least step time
    memory   least peak memory among the layouts that are so much slower than the fastest at most
    cost     least price of a token, over all devices and 1, 2, 3, 4, 6, 8, 12, ... nodes
    energy   least energy of a token, over the same; devices are taken to draw their power limit all the time, so that
             energy and price rank layouts alike, by devices x step time
    robust   least upper end of the prediction interval, which is wider for what no measurement covers (risk.py)
    devices  the fewest whole nodes of which a step takes a given time at most (fewest.py), of those the least step time

Equals under the objective: less time, less memory, then lower values in the order of front.py's TIE_COLUMNS. Times and
bytes are compared rounded to nine significant digits, so that the last bits of another machine's arithmetic decide
nothing.
"""

import math
from enum import StrEnum

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable
from meshwright.planner.layout.front import Front, mesh_numbers, tie_columns
from meshwright.planner.layout.risk import NO_RISK, Risk

SLOWER_BY_AT_MOST = 0.10  # where nothing else is asked


class Objective(StrEnum):
    """What the search makes small."""

    TIME = "time"
    COST = "cost"
    ENERGY = "energy"
    MEMORY = "memory"
    DEVICES = "devices"
    ROBUST = "robust"


BY_DEVICE_SECONDS = (Objective.COST, Objective.ENERGY)


def rounded(values: FloatArray) -> FloatArray:
    """Give positive values at nine significant digits, shape as given."""
    scale = 10.0 ** (8 - np.floor(np.log10(values)))
    return np.round(values * scale) / scale


def values(objective: Objective, front: Front, *, risk: Risk = NO_RISK) -> FloatArray:
    """Give what the objective makes small, [layouts]: seconds, device-seconds of a step, bytes, or devices."""
    if objective is Objective.ROBUST:
        return rounded(risk.factors(front.layouts) * front.step_time_s)
    if objective is Objective.MEMORY:
        return front.peak_bytes
    if objective in BY_DEVICE_SECONDS:
        return rounded(world_sizes(front.layouts) * front.step_time_s)
    if objective is Objective.DEVICES:
        return world_sizes(front.layouts).astype(np.float64)
    return front.step_time_s


def best_first(
    objective: Objective, front: Front, *, slower_by: float = SLOWER_BY_AT_MOST, risk: Risk = NO_RISK
) -> Front:
    """Give the layouts that the objective admits, best first.

    slower_by: for the memory, by how much a layout may be slower than the fastest, relative. risk: for the robust.
    """
    admitted = front
    if objective is Objective.MEMORY:
        admitted = front.take(np.flatnonzero(front.step_time_s <= _slowest_s(front, slower_by)))
    keys = (
        values(objective, admitted, risk=risk),
        admitted.step_time_s,
        admitted.peak_bytes,
        *tie_columns(admitted.layouts),
    )
    return admitted.take(np.lexsort(keys[::-1]))


def bar_s(
    objective: Objective,
    front: Front | None,
    *,
    top: int,
    devices: int,
    slower_by: float = SLOWER_BY_AT_MOST,
    risk: Risk = NO_RISK,
) -> float:
    """Give the step time in seconds above which a layout of so many devices is neither the best nor a runner-up.

    Args:
        objective: what is asked.
        front: what has been found, of whatever size; None if nothing has, which leaves the bar at infinity.
        top: how many runners-up are asked for, each of another mesh.
        devices: those of the layouts to come.
        slower_by: as for best_first.
        risk: as for best_first.

    """
    if front is None:
        return math.inf
    if objective is Objective.MEMORY:
        return _slowest_s(front, slower_by)
    mesh = mesh_numbers(front.layouts)
    least = np.full(mesh.max() + 1, np.inf)
    np.minimum.at(least, mesh, values(objective, front, risk=risk))
    last = float(np.partition(least, top)[top]) if len(least) > top else math.inf
    if objective is Objective.ROBUST:
        return last / risk.usual
    return last / devices if objective in BY_DEVICE_SECONDS else last


def bound_value(objective: Objective, bound_s: float, *, devices: int, risk: Risk = NO_RISK) -> float:
    """Give the least that the objective can come to where no step of so many devices is shorter than `bound_s`.

    The memory of slower layouts may be anything from 0 bytes.
    """
    if objective is Objective.MEMORY:
        return 0.0
    if objective is Objective.ROBUST:
        return risk.usual * bound_s
    return devices * bound_s if objective in BY_DEVICE_SECONDS else bound_s


def _slowest_s(front: Front, slower_by: float) -> float:
    return (1 + slower_by) * float(front.step_time_s.min())


def world_sizes(layouts: LayoutTable) -> IntArray:
    """Give the devices of each layout, shape [layouts]."""
    return layouts.tensor_parallel * layouts.context_parallel * layouts.pipeline_parallel * layouts.data_parallel
