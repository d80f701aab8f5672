"""Layers cut into unequal stages, and recomputed by stage: the problems of planner/stages that a space holds.

A problem is a twig of several stages, a schedule of one chunk a stage that the software runs, and a mode of
recomputation. Each has more layouts than could be listed, so that they are no leaves, but it is solved as one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import RecomputeBy, Splits
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import RECOMPUTES, SCHEDULES, FloatArray, LayoutTable, Recompute
from meshwright.costmodels.schedule import micro_batches
from meshwright.planner.layout.bound import cut_bound_s, mode_bound_s
from meshwright.planner.layout.limited_fields import RECOMPUTED
from meshwright.planner.layout.limits import Limits

IN_TURN = (Schedule.GPIPE, Schedule.ONE_F_ONE_B)
ZERO_BUBBLE = (Schedule.ZERO_BUBBLE_H1, Schedule.ZERO_BUBBLE_2P)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutProblems:
    """Problems, best bound first: a layout each, of which planner/stages finds the cut, and its bound, [problems]."""

    layouts: LayoutTable
    bound_s: FloatArray

    def __len__(self) -> int:
        return len(self.layouts)


def cut_problems(
    job: Job, twigs: LayoutTable, *, memory_limit_bytes: int, below_s: float, limits: Limits
) -> CutProblems:
    """Give the problems of some twigs that may take less than `below_s`; none where the software cuts evenly alone."""
    asked = limits.sizes(len(job.model.layers))
    several = twigs.pipeline_parallel == len(asked) if asked else twigs.pipeline_parallel > 1
    layouts = twigs.take(np.flatnonzero(several))
    bound_s = np.zeros(len(layouts))
    whole = limits.allows("virtual_pipeline", value=1) and limits.allows("vocabulary_parallel", value=False)
    # Of a split that is asked for only what each stage recomputes is left to choose, which leaves don't.
    left = not limits.fixes_split or job.stack.recompute_by is RecomputeBy.STAGE
    if job.stack.splits is Splits.ANY and len(layouts) and whole and left:
        found = [
            problems
            for zero_bubble, schedules in enumerate((IN_TURN, ZERO_BUBBLE))
            if set(schedules) & set(job.stack.schedules)
            for problems in _below(
                job,
                layouts,
                tuple(schedule for schedule in schedules if limits.allows("schedule", value=str(schedule))),
                memory_limit_bytes,
                zero_bubble=bool(zero_bubble),
                below_s=below_s,
                modes=_modes(job, limits),
            )
        ]
    else:
        found = []
    if not found:
        return CutProblems(layouts=twigs.take(np.zeros(0, dtype=np.int64)), bound_s=np.zeros(0))
    layouts, bound_s = LayoutTable.joined([table for table, _ in found]), np.concatenate([bound for _, bound in found])
    order = np.argsort(bound_s, kind="stable")
    return CutProblems(layouts=layouts.take(order), bound_s=bound_s[order])


def _below(
    job: Job,
    twigs: LayoutTable,
    schedules: tuple[Schedule, ...],
    limit: int,
    *,
    zero_bubble: bool,
    below_s: float,
    modes: tuple[Recompute, ...],
) -> Iterator[tuple[LayoutTable, FloatArray]]:
    """Give the problems of some schedules, with their bounds: of all modes first, then of each."""
    schedules = tuple(schedule for schedule in schedules if schedule in job.stack.schedules)
    # Of those alone the bounds are closer, and the vocabulary isn't shared here.
    stack = job.stack.model_copy(update={"schedules": schedules, "vocabulary_parallel": False})
    job = replace(job, stack=stack)
    bound_s = cut_bound_s(job, twigs, memory_limit_bytes=limit, zero_bubble=zero_bubble, below_s=below_s)
    filled = micro_batches(job.global_batch, twigs) >= twigs.pipeline_parallel
    rows = np.flatnonzero((bound_s <= below_s) & (filled | (not zero_bubble)))
    for schedule, mode in product(schedules, modes):
        if not len(rows):
            continue
        layouts = replace(
            twigs.take(rows),
            schedule=np.full(len(rows), SCHEDULES.index(schedule)),
            recompute=np.full(len(rows), RECOMPUTES.index(mode)),
        )
        closer_s = mode_bound_s(job, layouts, memory_limit_bytes=limit, zero_bubble=zero_bubble, below_s=below_s)
        kept = np.flatnonzero(closer_s <= below_s)
        yield layouts.take(kept), np.maximum(closer_s, bound_s[rows])[kept]


def _modes(job: Job, limits: Limits) -> tuple[Recompute, ...]:
    """Give the modes to solve for; full recomputation of no layers is none, where layers are counted.

    Where they are, a mode that limits force on all can't be told from none of it: then there are no problems. Under
    limits on the number of recomputed layers, which is the same in all chunks, none are recomputed here.
    """
    allowed = tuple(mode for mode in Recompute if limits.allows("recompute", value=str(mode)))
    if RECOMPUTED in limits.fields():
        allowed = tuple(mode for mode in allowed if mode is not Recompute.FULL and RECOMPUTED not in limits.fix)
    if job.stack.recompute_by is RecomputeBy.ALL:
        return allowed
    if Recompute.NONE not in allowed:
        return ()
    return tuple(mode for mode in allowed if mode is not Recompute.NONE or Recompute.FULL not in allowed)
