"""How long the busiest stage takes at least where layers are cut unequally and recomputed as memory asks for.

Of the heaviest kind of layer, t seconds a micro-batch and r seconds to compute it again, stage s needs for n layers

    k_s(n) = least whole k >= 0 with n (S + H_s A) - k H_s (A - a) <= B          of them recomputed, k <= n
    c_s(n) = n t + k_s(n) r + embedding or head                                  seconds

with states S, activations of A bytes, or a where it is recomputed, H_s micro-batches in flight, and room for B bytes.
In T seconds all stages have time for sum over s of max {n: c_s(n) <= T} layers, which is no less for a larger T; the
least T that is enough for all of the kind is found by halving what is open between 0 and the step time that is of
interest. Other kinds, and what else a stage holds, are left out: they only add to it.
"""

from dataclasses import replace

import numpy as np

from meshwright.catalog.stack_entry import RecomputeBy
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import RECOMPUTES, FloatArray, LayoutTable, Recompute
from meshwright.costmodels.recompute import FULL
from meshwright.costmodels.schedule import held_micro_batches, micro_batches
from meshwright.costmodels.vocabulary import embedding_s, head_s
from meshwright.planner.layout.needs import heaviest_of, layer_needs, room_bytes

HALVINGS = 30
# Layouts at a time, which bounds memory.
ROWS = 256
ROUNDING = 1e-9
NONE = RECOMPUTES.index(Recompute.NONE)


def least_busiest_s(job: Job, layouts: LayoutTable, *, memory_limit_bytes: int, below_s: float) -> FloatArray:
    """Give the least seconds of the busiest stage for a micro-batch, [layouts]; infinity if no step is below `below_s`.

    Args:
        job: the job.
        layouts: degrees, ZeRO, a schedule of one chunk a stage, the mode of recomputation; their splits don't matter.
        memory_limit_bytes: what a device may use.
        below_s: the step time that is of interest, finite.

    """
    parts = [layouts.take(np.arange(first, min(first + ROWS, len(layouts)))) for first in range(0, len(layouts), ROWS)]
    bounds = [_halved_s(job, part, memory_limit_bytes, below_s=below_s) for part in parts]
    return np.concatenate([np.zeros(0), *bounds])


def _halved_s(job: Job, layouts: LayoutTable, memory_limit_bytes: int, *, below_s: float) -> FloatArray:
    total = micro_batches(job.global_batch, layouts)
    costs_s, count = _costs_s(job, layouts, memory_limit_bytes, longest_s=below_s / total)
    least_s, most_s = np.zeros(len(layouts)), below_s / total
    never = _layers_in(costs_s, most_s) < count
    for _ in range(HALVINGS):
        middle_s = (least_s + most_s) / 2
        enough = _layers_in(costs_s, middle_s) >= count
        least_s, most_s = np.where(enough, least_s, middle_s), np.where(enough, middle_s, most_s)
    return np.where(never, np.inf, least_s)


def _layers_in(costs_s: FloatArray, seconds: FloatArray) -> FloatArray:
    """Give how many layers all stages have time for, [layouts]: costs rise with the layers of a stage."""
    count: FloatArray = (costs_s <= seconds[:, np.newaxis, np.newaxis]).sum(axis=(1, 2))
    return count


def _costs_s(job: Job, layouts: LayoutTable, limit: int, *, longest_s: FloatArray) -> tuple[FloatArray, int]:
    """Give c_s(n) for n = 1, 2, ..., [layouts, stages, n], and how many layers there are of the kind."""
    plain = replace(layouts, recompute=np.full(len(layouts), NONE))
    needs = tuple(layer_needs(job, plain))
    kind = heaviest_of(needs)
    need, mtp_layers = needs[kind], job.model.mtp_layers * (kind == job.model.kind_of_layer[-1])
    rows = np.arange(len(layouts))
    layer_s, again_s = need.layer_s, np.array(need.again_s)[layouts.recompute, rows]
    kept, kept_again = need.kept_bytes[NONE], np.array(need.kept_bytes)[layouts.recompute, rows]
    count = job.model.kind_of_layer.count(kind)
    sizes = np.arange(1, min(int((longest_s / layer_s).max(initial=1)) + 1, count) + 1)
    stage = np.arange(layouts.pipeline_parallel.max(initial=1))[np.newaxis, :]
    last = stage == layouts.pipeline_parallel[:, np.newaxis] - 1
    held = held_micro_batches(
        layouts, np.broadcast_to(stage, last.shape), total=micro_batches(job.global_batch, layouts)
    )
    layers = sizes + (mtp_layers * last)[..., np.newaxis]

    def by_row(values: FloatArray) -> FloatArray:
        return values[:, np.newaxis, np.newaxis]

    in_flight = held[..., np.newaxis]
    over = layers * (by_row(need.state_bytes) + in_flight * by_row(kept)) - by_row(room_bytes(job, layouts, limit))
    freed = in_flight * by_row(np.maximum(kept - kept_again, 0.0))
    counts = np.ceil(np.divide(over, freed, out=np.full(over.shape, np.inf), where=freed > 0) - ROUNDING)
    counts = np.where(over <= 0, 0.0, np.maximum(counts, 1.0))
    together = (layouts.recompute != FULL) | (job.stack.recompute_by is RecomputeBy.ALL)
    if job.stack.recompute_by is not RecomputeBy.STAGE:
        every = by_row((together & (layouts.recompute != NONE)).astype(float)) > 0
        counts = np.where(every & (counts <= layers), layers, counts)
    embedding, head = (np.add(*both)[:, np.newaxis] for both in (embedding_s(job, layouts), head_s(job, layouts)))
    ends_s = (stage == 0) * embedding + last * head
    again_s = np.where(counts <= layers, counts, 0.0) * by_row(again_s)
    costs_s = np.where(counts <= layers, layers * by_row(layer_s) + again_s, np.inf)
    costs_s = costs_s + ends_s[..., np.newaxis]
    here = (stage < layouts.pipeline_parallel[:, np.newaxis])[..., np.newaxis]
    return np.where(here, costs_s, np.inf), count
