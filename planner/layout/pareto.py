"""The Pareto front of step time and memory, of one number of devices and of models cut evenly into stages.

A layout is on it if none is as fast and needs as little memory. Twigs are opened in the order of their lower bounds of
time, some at a time; of one with bounds (t, m), of time (bound.py) and memory, nothing is on the front that isn't known
already where a layout that has been found takes t at most with m bytes at most. The bound of memory of all leaves is

    m = outside + (1 + slack) (workspace + sum over layers of (states + what a layer keeps of one micro-batch) / P)

with the least that any recomputation keeps: a stage holds one micro-batch at least, and the fullest of P stages no less
than their mean.
"""

from collections.abc import Iterator

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray
from meshwright.planner.layout.bound import branch_bound_s, twig_bound_s
from meshwright.planner.layout.evaluation import evaluated
from meshwright.planner.layout.front import Front, joined, tie_columns
from meshwright.planner.layout.needs import twig_bytes
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.question import Question
from meshwright.planner.layout.rules import Columns
from meshwright.planner.layout.search import BRANCHES, ROUNDING, TWIGS
from meshwright.planner.layout.space import Space, space_of, taken


def pareto_front(job: Job, question: Question) -> Front | None:
    """Give the front of all layouts that fit, fastest first; None where none does. The objective is ignored."""
    space, front = space_of(job, question.limits), None
    asked = Question(
        objective=Objective.MEMORY, memory_limit_bytes=question.memory_limit_bytes, top=0, limits=question.limits
    )
    for twigs, bound_s, least_bytes in _twigs(space, asked):
        order = np.argsort(bound_s, kind="stable")
        for start in range(0, len(order), TWIGS):
            rows = order[start : start + TWIGS]
            rows = rows[_useful(front, bound_s[rows], least_bytes[rows])]
            found = evaluated(space, taken(twigs, rows), asked).front if len(rows) else None
            if found is not None:
                front = _nondominated(found if front is None else joined([front, found]))
    return front


def _twigs(space: Space, question: Question) -> Iterator[tuple[Columns, FloatArray, FloatArray]]:
    """Give the twigs that something may fit of, with their bounds, in the order of the bounds of their branches."""
    branches = space.branches.rows
    if not len(space.branches):
        return
    order = np.argsort(branch_bound_s(space.job, space.table(branches)), kind="stable")
    for start in range(0, len(order), BRANCHES):
        twigs = space.twigs(taken(branches, order[start : start + BRANCHES])).rows
        table = space.table(twigs)
        if not len(table):
            continue
        bound_s = twig_bound_s(space.job, table, memory_limit_bytes=question.memory_limit_bytes)
        fits = np.flatnonzero(np.isfinite(bound_s))
        if len(fits):
            yield taken(twigs, fits), bound_s[fits], twig_bytes(space.job, table.take(fits))


def _useful(front: Front | None, bound_s: FloatArray, least_bytes: FloatArray) -> BoolArray:
    """Give where the bounds leave room for something that isn't on the front, [twigs]."""
    if front is None:
        return np.ones(len(bound_s), dtype=bool)
    faster = np.searchsorted(front.step_time_s, (1 - ROUNDING) * bound_s, side="right")
    least = np.minimum.accumulate(front.peak_bytes)[np.maximum(faster - 1, 0)]
    return np.asarray((faster == 0) | (least > (1 - ROUNDING) * least_bytes))


def _nondominated(front: Front) -> Front:
    order: IntArray = np.lexsort([*reversed(tie_columns(front.layouts)), front.peak_bytes, front.step_time_s])
    peak = front.peak_bytes[order]
    better = np.ones(len(order), dtype=bool)
    better[1:] = peak[1:] < np.minimum.accumulate(peak)[:-1]
    return front.take(order[better])
