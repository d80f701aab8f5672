"""The split with the least peak of those that are fast enough, by halving the memory that the fastest one may use.

best_cut says for a limit on memory whether a split within it takes less than some seconds, and gives the fastest. What
no split does with and what one needs enclose the least peak; the limit between them halves that, until peaks differ by
less than they are compared at.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout
from meshwright.planner.stages.cut import Cut, best_cut

# Peaks are compared at nine significant digits.
ROUNDING = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Leanest:
    """The split, None where there is none; left_s: the least step of one with less memory, if there can be any."""

    cut: Cut | None
    left_s: float = np.inf


def leanest_cut(
    job: Job, layout: Layout, *, memory_limit_bytes: int, below_s: float, split: tuple[int, ...] | None
) -> Leanest:
    """Find the split that needs the least memory of those below `below_s`; the arguments are those of best_cut."""
    leanest, never, limit = Leanest(cut=None), 0, memory_limit_bytes
    while limit > never:
        cut = best_cut(job, layout, memory_limit_bytes=limit, below_s=below_s, split=split)
        if cut is not None and cut.step_time_s < below_s:
            leanest = Leanest(cut=cut, left_s=leanest.left_s)
        else:
            never = limit
            left_s = np.inf if cut is None else cut.bound_s
            leanest = Leanest(cut=leanest.cut, left_s=min(leanest.left_s, left_s))
        if leanest.cut is None:
            break
        limit = (never + less_bytes(leanest.cut.peak_bytes) + 1) // 2
    return leanest


def less_bytes(peak_bytes: float) -> int:
    """Give the most bytes that are less than a peak, at the digits that peaks are compared at."""
    return int(peak_bytes * (1 - ROUNDING))
