"""What "best" means, and the order of equals.

    time     least step time
    memory   least peak memory among the layouts at most 10 % slower than the fastest
    cost     least price of a token, over the whole cluster and its halves, quarters, ... of whole nodes

Equals under the objective: less time, less memory, then lower degrees in the order of TIE_COLUMNS, then whichever comes
first in the order in which choices.py offers them. Times and bytes are compared rounded to nine significant digits, so
that the last bits of another machine's arithmetic decide nothing.
"""

from enum import StrEnum

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable

SLOWER_BY_AT_MOST = 0.10
TIE_COLUMNS = ("tensor_parallel", "pipeline_parallel", "context_parallel", "expert_parallel", "data_parallel")


class Objective(StrEnum):
    """What the search makes small."""

    TIME = "time"
    COST = "cost"
    MEMORY = "memory"


def rounded(values: FloatArray) -> FloatArray:
    """Give positive values at nine significant digits, shape as given."""
    scale = 10.0 ** (8 - np.floor(np.log10(values)))
    return np.round(values * scale) / scale


def best_first(
    objective: Objective, layouts: LayoutTable, *, step_time_s: FloatArray, peak_bytes: FloatArray
) -> IntArray:
    """Give the rows that the objective admits, best first, shape [admitted]. Times and bytes are of shape [layouts]."""
    rows = np.arange(len(layouts))
    keys: tuple[FloatArray, ...] = (step_time_s, peak_bytes)
    if objective is Objective.MEMORY:
        rows = np.flatnonzero(step_time_s <= (1 + SLOWER_BY_AT_MOST) * step_time_s.min())
        keys = (peak_bytes, step_time_s)
    elif objective is Objective.COST:
        devices = world_sizes(layouts)
        keys = (rounded(devices * step_time_s), step_time_s, peak_bytes)
    ties = [getattr(layouts, name) for name in TIE_COLUMNS]
    order = np.lexsort([column[rows] for column in reversed((*keys, *ties))])
    return rows[order]


def world_sizes(layouts: LayoutTable) -> IntArray:
    """Give the devices of each layout, shape [layouts]."""
    return layouts.tensor_parallel * layouts.context_parallel * layouts.pipeline_parallel * layouts.data_parallel
