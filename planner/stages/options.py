"""What each stage may hold: the decision variables of the inner problem, and which of them memory and software allow.

    k in 0..P-1            stages
    a_k, n_k >= 1          stage k holds the layers [a_k, a_k + n_k); a_0 = 0, a_k+1 = a_k + n_k, a_P = L
    r_k in 0..n_k          of them the first r_k are recomputed; MTP modules count as layers behind the last

An option of stage k at layer a is a pair (n, r). It is open where stage k, with the micro-batches that it has in
flight, stays within the memory limit, and where each stage before and behind it gets a layer; and, by what the software
has,

    splits: even       n_k is the even cut's                 recompute_by: all      r_k is 0, or all, as the layout says
                                                             chunk   r_k = min(r, n_k) with one r for all stages
                                                             stage   any r_k

Recomputing more than memory asks for makes no pass shorter, so that an r_k beyond the least that fits is an option only
where one makes the end of the step shorter, of messages that run beside longer backward passes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from meshwright.catalog.stack_entry import RecomputeBy, Splits
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import LayerTime
from meshwright.costmodels.layout import BoolArray, IntArray, Layout, Recompute
from meshwright.costmodels.stages import chunk_sizes
from meshwright.planner.layout.objective import rounded
from meshwright.planner.stages.figures import Figures, figures_of
from meshwright.planner.stages.segments import Segments

# Two sums of the same seconds in another order differ by less.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What each stage may hold, arrays of shape [stages, starts, options] where nothing else is said.

    sizes: layers of each option, ascending, [options]; several in a row recompute more and more.
    recomputed: layers that it recomputes.
    figures: what it costs. is_open: whether it can be taken; elsewhere its figures are of something else.
    """

    sizes: IntArray
    recomputed: IntArray
    figures: Figures
    is_open: BoolArray

    def only(self, split: Sequence[int]) -> Self:
        """Close all but those of stages that hold so many layers each."""
        stage, start = np.arange(len(split))[:, np.newaxis, np.newaxis], np.arange(self.is_open.shape[1])[:, np.newaxis]
        ends = np.cumsum(split)
        fitting = (start == (ends - split)[stage]) & (start + self.sizes == ends[stage])
        return replace(self, is_open=self.is_open & fitting)

    def without_excess(self, end_s: float) -> Self:
        """Close what recomputes more layers than one that ends a step in `end_s`, which none can end it before."""
        stages, layers, count = self.is_open.shape
        choices = count // len(np.unique(self.sizes))
        enough = self.is_open & (self.figures.end_s <= end_s * (1 + ROUNDING))
        by_size = enough.reshape(stages, layers, -1, choices)
        excess = np.logical_or.accumulate(by_size, axis=3)[..., :-1].reshape(stages, layers, -1)
        is_open = self.is_open.reshape(by_size.shape).copy()
        is_open[..., 1:] &= ~excess.reshape(*by_size.shape[:3], choices - 1)
        return replace(self, is_open=is_open.reshape(self.is_open.shape))


def options_of(
    job: Job,
    layout: Layout,
    kinds: Sequence[LayerTime],
    *,
    memory_limit_bytes: float,
    longest: int,
    below_s: float,
    split: tuple[int, ...] | None = None,
) -> Iterator[Options]:
    """Give the options of a problem, once for each recomputation that all stages have to share.

    Args:
        job: the job.
        layout: degrees, schedule, ZeRO, recomputation and micro-batch; its own split doesn't matter.
        kinds: seconds of a layer of each kind.
        memory_limit_bytes: what a device may use, as nvidia-smi counts it.
        longest: layers of a stage at most.
        below_s: what a step takes at most that matters.
        split: layers of each stage, where they aren't to be chosen.

    """
    segments = Segments.of(job.model, longest=longest)
    is_last = np.arange(layout.pipeline_parallel)[:, np.newaxis] == layout.pipeline_parallel - 1
    most = segments.sizes + job.model.mtp_layers * is_last
    recomputed = _recomputed(job, layout, most)
    figures = figures_of(job, layout, kinds, segments, recomputed, below_s=below_s)
    fits = rounded(figures.peak_bytes) <= memory_limit_bytes
    if job.stack.splits is Splits.EVEN:
        split = chunk_sizes(len(job.model.layers), layout.pipeline_parallel)
    for choice in _choices(job, layout, most, fits, figures):
        options = _options(layout, segments, figures=figures, recomputed=recomputed, fits=fits, choice=choice)
        yield options if split is None else options.only(split)


def recompute_by(job: Job, layout: Layout) -> RecomputeBy:
    """Tell by what a layout's recomputation can be chosen: selectively, of all layers unless each stage has its own."""
    by = job.stack.recompute_by
    return RecomputeBy.ALL if layout.recompute is not Recompute.FULL and by is RecomputeBy.CHUNK else by


def _recomputed(job: Job, layout: Layout, most: IntArray) -> IntArray:
    """Give the numbers of recomputed layers to look at, [stages, runs, numbers]."""
    if layout.recompute is Recompute.NONE:
        return np.zeros((*most.shape, 1), dtype=np.int64)
    if recompute_by(job, layout) is RecomputeBy.ALL:
        return most[..., np.newaxis]
    return np.minimum(np.arange(most.max() + 1), most[..., np.newaxis])


def _choices(job: Job, layout: Layout, most: IntArray, fits: BoolArray, figures: Figures) -> Iterator[IntArray]:
    """Give which of those numbers a stage has to choose from, [stages, runs, choices]."""
    numbers = np.arange(fits.shape[2])
    if len(numbers) == 1:
        yield np.zeros((*most.shape, 1), dtype=np.int64)
    elif recompute_by(job, layout) is RecomputeBy.CHUNK:
        for number in numbers:
            yield np.minimum(number, most)[..., np.newaxis]
    else:
        least = fits.argmax(axis=2)[..., np.newaxis]
        end_s = np.take_along_axis(figures.end_s, least, axis=2)
        shorter = (numbers > least) & (figures.end_s < end_s * (1 - ROUNDING))
        yield np.broadcast_to(numbers, fits.shape) if shorter.any() else least


def _options(
    layout: Layout,
    segments: Segments,
    *,
    figures: Figures,
    recomputed: IntArray,
    fits: BoolArray,
    choice: IntArray,
) -> Options:
    stages, choices = layout.pipeline_parallel, choice.shape[2]
    layers, longest = segments.run.shape
    stage = np.arange(stages)[:, np.newaxis, np.newaxis]
    start = np.arange(layers)[:, np.newaxis]
    sizes = np.repeat(np.arange(1, longest + 1), choices)
    run = np.repeat(segments.run, choices, axis=1)
    picked = choice[stage, run, np.arange(len(sizes)) % choices]
    end = start + sizes
    is_open = fits[stage, run, picked] & (start >= stage) & (end <= layers - (stages - 1 - stage))
    is_open &= ((stage > 0) | (start == 0)) & ((stage < stages - 1) | (end == layers))
    return Options(
        sizes=sizes,
        recomputed=recomputed[stage, run, picked],
        figures=figures.at(stage, run, picked),
        is_open=is_open,
    )
