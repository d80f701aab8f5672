"""What a step takes at least where a stage holds a segment, whatever the others hold.

With f, b and w the seconds of a stage's passes (w = 0 but under zero-bubble schedules), t = f + b + w, e what it spends
once a step, M micro-batches, and c = 1, or 2 under ZB-2p, a step takes

    T = max(law, M max t_k) + max e_k + what doesn't depend on the split

where a law is the longest of some chains of passes (costmodels/schedule). One chain for each stage k is written so that
it depends on k's own option and on sums over the stages before and behind it alone. With W_k = c (P - 1 - k) warm-up
passes, of 1F1B and its relatives (chains.py)

    in     max( sum_all f + sum_s>k b,  sum_s<=k f + min(W_k, M - 1) f_k )
    pairs  (M - 1 - W_k) (f_k + b_k) + max(M - 1 - W_k - c k, 0) w_k         where M - 1 > W_k, else 0
    out    max( sum_s>k (f + b),  min(W_k, M - 1) b_k + (weight gradients among them) w_k )
           + b_k + max( sum_s<k b,  (weight gradients put off) w_k )
    chain  in + pairs + out;  where there are no pairs: the second of `in` + the second of `out`

These are the chains that turn on the last stage or on k, and end on the first stage or on k; where stages don't wait
for one another at the end, less sum_s<k f for those that end on k. Of GPipe

    chain  sum_all t + (M - 1) t_k

So with sums that no split goes below (least sums over all ways to deal the layers before and behind k's segment, which
are the same for all ways where nothing is recomputed),

    cost_k(a_k, option) = max(chain_k, M t_k) + e_k          and          T >= max_k cost_k + what is left

since each maximum is at least what k contributes to it; with e_k at least the least maximum of e over all splits. What
it falls short of T by is what another stage's e is above that, and where the longest chain turns elsewhere.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import BoolArray, FloatArray, Layout
from meshwright.planner.stages.dynamic_program import least_maxima, least_sums_before, least_sums_behind
from meshwright.planner.stages.options import Options


def least_costs_s(layout: Layout, options: Options, *, total: float, together: bool) -> FloatArray:
    """Give cost_k of each option, [stages, starts, options], infinite where it isn't open.

    Args:
        layout: its schedule and pipeline.
        options: what each stage may hold.
        total: micro-batches of a step.
        together: stages wait for one another at the end of a step.

    """
    end_s = np.where(options.is_open, options.figures.end_s, np.inf)
    least_end_s = float(least_maxima(end_s, options.sizes)[0, 0])
    options = options.without_excess(least_end_s)
    sums = _Sums.of(options)
    if layout.schedule is Schedule.GPIPE:
        chains_s = sums.all_s + (total - 1) * options.figures.busy_s
    else:
        chains_s = _chains_s(layout, options, sums, total=total, together=together)
    costs_s = np.maximum(chains_s, total * options.figures.busy_s) + np.maximum(end_s, least_end_s)
    return np.where(options.is_open & sums.is_whole, costs_s, np.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """The least that the stages before and behind each option can sum up to, [stages, starts, options].

    is_whole: whether there can be any; elsewhere the sums are 0. Backward passes are without weight gradients.
    """

    forward_before_s: FloatArray
    forward_behind_s: FloatArray
    backward_before_s: FloatArray
    backward_behind_s: FloatArray
    all_s: FloatArray
    is_whole: BoolArray

    @classmethod
    def of(cls, options: Options) -> Self:
        figures, sizes = options.figures, options.sizes
        costs = np.where(options.is_open, np.stack([figures.forward_s, figures.backward_s]), np.inf)
        stages, layers, _ = options.is_open.shape
        stage = np.arange(stages)[:, np.newaxis, np.newaxis]
        start = np.arange(layers)[:, np.newaxis]
        before = least_sums_before(costs, sizes)[:, stage, start]
        behind = least_sums_behind(costs, sizes)[:, stage + 1, np.minimum(start + sizes, layers)]
        is_whole = np.isfinite(before[0]) & np.isfinite(behind[0])
        before, behind = (np.where(is_whole, sums, 0.0) for sums in (before, behind))
        return cls(
            forward_before_s=before[0],
            forward_behind_s=behind[0],
            backward_before_s=before[1],
            backward_behind_s=behind[1],
            all_s=(before + behind).sum(axis=0) + figures.forward_s + figures.backward_s,
            is_whole=is_whole,
        )


def _chains_s(layout: Layout, options: Options, sums: _Sums, *, total: float, together: bool) -> FloatArray:
    """Give chain_k of each option where one pass each way is run in turn, [stages, starts, options]."""
    forward_s, backward_s, weight_s = (options.figures.forward_s, options.figures.backward_s, options.figures.weight_s)
    slack = 2 if layout.schedule is Schedule.ZERO_BUBBLE_2P else 1
    stage = np.arange(layout.pipeline_parallel)[:, np.newaxis, np.newaxis]
    warm, delay = slack * (layout.pipeline_parallel - 1 - stage), slack * stage
    pairs = np.maximum(total - 1 - warm, 0.0)
    left = np.minimum(warm, total - 1)
    reached_s = sums.forward_before_s + forward_s + left * forward_s
    across_s = sums.forward_before_s + forward_s + sums.forward_behind_s + sums.backward_behind_s
    put_off_s = (total - np.maximum(total - 1 - delay, 0)) * weight_s
    if not together:
        put_off_s = put_off_s - sums.forward_before_s
    drained_s = backward_s + np.maximum(sums.backward_before_s, put_off_s)
    own_s = drained_s + left * backward_s + np.maximum(total - 1 - np.maximum(pairs, delay), 0) * weight_s
    returned_s = sums.forward_behind_s + sums.backward_behind_s + drained_s
    pairs_s = pairs * (forward_s + backward_s) + np.maximum(pairs - delay, 0) * weight_s
    chains_s = np.maximum(reached_s, across_s) + pairs_s + np.maximum(own_s, returned_s)
    return np.asarray(np.where(pairs > 0, chains_s, reached_s + own_s))
