"""What of a layout a measurement may never have seen: the practices that its prediction relies on beyond the common.

Tensor and data parallelism, the lower stages of ZeRO, recomputation and 1F1B are in the measurements of every family.
"""

from collections.abc import Iterable

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import SCHEDULES, BoolArray, Layout, LayoutTable

CONTEXT, EXPERT, SHARDED = "context parallelism", "expert parallelism", "ZeRO-3"


def practices_of(layout: Layout) -> tuple[str, ...]:
    """Name the practices of a layout."""
    found = {
        CONTEXT: layout.context_parallel > 1,
        EXPERT: layout.expert_parallel > 1,
        SHARDED: layout.zero_stage == 3,
        _schedule(layout.schedule): layout.pipeline_parallel > 1 and layout.schedule is not Schedule.ONE_F_ONE_B,
    }
    return tuple(name for name, there in found.items() if there)


def beyond(layouts: LayoutTable, practised: Iterable[str]) -> BoolArray:
    """Give where layouts have a practice that isn't among those, [layouts]."""
    known = set(practised)
    other = [SCHEDULES.index(one) for one in SCHEDULES if one is not Schedule.ONE_F_ONE_B]
    unknown = [code for code in other if _schedule(SCHEDULES[code]) not in known]
    new = (layouts.pipeline_parallel > 1) & np.isin(layouts.schedule, unknown)
    for name, there in (
        (CONTEXT, layouts.context_parallel > 1),
        (EXPERT, layouts.expert_parallel > 1),
        (SHARDED, layouts.zero_stage == 3),
    ):
        new |= there & (name not in known)
    return np.asarray(new)


def _schedule(schedule: Schedule) -> str:
    return f"the schedule {schedule}"
