"""Each schedule's law, and which layouts it is of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray, LayoutTable
from meshwright.costmodels.schedule import codes
from meshwright.costmodels.schedule.chains import chain_s
from meshwright.costmodels.schedule.dual_pipe import dual_pipe_s
from meshwright.costmodels.schedule.folded import v_half_s, v_min_s, zero_bubble_v_s
from meshwright.costmodels.schedule.gpipe import gpipe_s
from meshwright.costmodels.schedule.interleaved import interleaved_s
from meshwright.costmodels.schedule.stage_times import StageTimes

Law = Callable[[StageTimes, FloatArray, IntArray], FloatArray]

LAWS: dict[int, Law] = {
    codes.GPIPE: lambda times, total, _: gpipe_s(times, total),
    codes.ONE_F_ONE_B: chain_s,
    codes.INTERLEAVED: interleaved_s,
    codes.ZERO_BUBBLE_H1: chain_s,
    codes.ZERO_BUBBLE_2P: partial(chain_s, slack=2),
    codes.V_HALF: v_half_s,
    codes.V_MIN: v_min_s,
    codes.ZERO_BUBBLE_V: zero_bubble_v_s,
    codes.DUAL_PIPE: dual_pipe_s,
    codes.DUAL_PIPE_V: lambda times, passes, pipeline: dual_pipe_s(times, passes, 2 * pipeline),
}
# The laws of stages that start the next step when they are done, where that makes a difference.
LAWS_APART: dict[int, Law] = LAWS | {
    codes.ZERO_BUBBLE_H1: partial(chain_s, together=False),
    codes.ZERO_BUBBLE_2P: partial(chain_s, slack=2, together=False),
    codes.ZERO_BUBBLE_V: partial(zero_bubble_v_s, together=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """Layouts of one schedule and one number of chunks a stage, as a mask of shape [layouts]."""

    schedule: int
    chunks: int
    rows: BoolArray


def alike(layouts: LayoutTable) -> Iterator[Alike]:
    """Give the pipelines among some layouts, by schedule and chunks a stage.

    Interleaving one chunk is 1F1B; schedules of one chunk run several as interleaving does.
    """
    chunks = codes.chunks_a_stage(layouts)
    single = ~np.isin(layouts.schedule, (*codes.FOLDED, codes.DUAL_PIPE))
    schedule = np.where((chunks > 1) & single, codes.INTERLEAVED, layouts.schedule)
    schedule = np.where((chunks == 1) & (schedule == codes.INTERLEAVED), codes.ONE_F_ONE_B, schedule)
    code = np.where(layouts.pipeline_parallel > 1, schedule * (chunks.max(initial=0) + 1) + chunks, -1)
    for value in np.unique(code[code >= 0]):
        rows = code == value
        first = int(np.argmax(rows))
        yield Alike(schedule=int(schedule[first]), chunks=int(chunks[first]), rows=rows)


def waiting_s(
    schedule: int, times: StageTimes, *, passes: FloatArray, pipeline: IntArray, together: bool
) -> FloatArray:
    """Give the seconds of a step beyond the busiest stage's own work, [layouts].

    Args:
        schedule: its code.
        times: the stages; of schedules that don't split the backward pass, weight gradients are part of that.
        passes: how often each chunk is passed in a step, [layouts].
        pipeline: stages, [layouts].
        together: stages wait for one another at the end of a step.

    """
    law = (LAWS if together else LAWS_APART)[schedule]
    return np.maximum(law(times, passes, pipeline) - passes * times.busiest_s, 0.0)
