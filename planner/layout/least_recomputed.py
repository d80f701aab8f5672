"""Full recomputation of as few layers of each chunk as memory asks for.

Every layer that is computed again takes time, and keeps less than one that isn't. So of the layouts that differ in how
many layers of each chunk are recomputed, none is faster than that of the least number k that fits: which is found by
halving the numbers between 1 and all but one of the largest chunk's n layers,

    fits(k) is false for k < k*, true for k >= k*;   at most log2(n) predictions of memory a layout

Where not even n - 1 fit, that is what is left. Where less memory is worth a longer step, every number may be the best.
"""

from dataclasses import replace

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import BoolArray, IntArray, LayoutTable
from meshwright.costmodels.predict import predict_memory
from meshwright.planner.layout.choices import AS_FEW_AS_FIT
from meshwright.planner.layout.limits import Limits


def least_recomputed(job: Job, layouts: LayoutTable, *, limit_bytes: int, limits: Limits | None = None) -> LayoutTable:
    """Give layouts with the number in the place of AS_FEW_AS_FIT, of those that limits leave, each at least one."""
    asked = layouts.recompute_layers == AS_FEW_AS_FIT
    if not asked.any():
        return layouts
    chosen = layouts.take(asked)
    largest = _most(job, chosen)
    numbers = _numbers(largest, limits)
    least, most = np.zeros(len(chosen), dtype=np.int64), np.searchsorted(numbers, largest, side="right") - 1
    while (open_rows := np.flatnonzero(least < most)).size:
        middle = (least[open_rows] + most[open_rows]) // 2
        fits = _fits(job, chosen.take(open_rows), numbers[middle], limit_bytes)
        most[open_rows] = np.where(fits, middle, most[open_rows])
        least[open_rows] = np.where(fits, least[open_rows], middle + 1)
    counts = layouts.recompute_layers.copy()
    counts[asked] = numbers[least]
    return replace(layouts, recompute_layers=counts)


def every_count(job: Job, layouts: LayoutTable, *, limits: Limits | None = None) -> tuple[LayoutTable, IntArray]:
    """Give layouts once for every number in the place of AS_FEW_AS_FIT, and which each was.

    Numbers are those from 1 to n - 1 that limits leave.
    """
    asked = layouts.recompute_layers == AS_FEW_AS_FIT
    largest = _most(job, layouts)
    numbers = _numbers(largest, limits)
    counts = np.where(asked, np.searchsorted(numbers, largest, side="right"), 1)
    rows = np.repeat(np.arange(len(layouts)), counts)
    number = np.append(numbers, 0)[np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)]
    repeated = layouts.take(rows)
    return replace(repeated, recompute_layers=np.where(asked[rows], number, repeated.recompute_layers)), rows


def _most(job: Job, layouts: LayoutTable) -> IntArray:
    """Give the layers of the largest chunk, less one, [layouts]."""
    chunks = layouts.pipeline_parallel * layouts.virtual_pipeline
    largest = np.array([max(split.sizes, default=0) for split in layouts.splits])[layouts.split]
    return np.where(largest > 0, largest, -(-len(job.model.layers) // chunks)) - 1


def _numbers(most: IntArray, limits: Limits | None) -> IntArray:
    """Give the numbers of layers that may be recomputed of a chunk, ascending, up to the largest of some."""
    return (limits or Limits()).recompute_counts(int(most.max(initial=0)))


def _fits(job: Job, layouts: LayoutTable, counts: IntArray, limit_bytes: int) -> BoolArray:
    peak = predict_memory(job, replace(layouts, recompute_layers=counts)).nvidia_smi_bytes
    return np.asarray(peak <= limit_bytes)
