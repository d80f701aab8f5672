"""The inner problem of the search: the fastest way to cut a model into stages, with what each of them recomputes.

    minimise    predict_time                         of a schedule of one chunk a stage
    over        layers of each stage, contiguous, and how many of them are recomputed           options.py
    subject to  predict_memory <= the limit, on each stage with its micro-batches in flight

1  what each stage takes and needs, for each segment of layers that it may hold                 segments.py, figures.py
2  a lower bound of the step that is the maximum of one cost a stage                            lower_bounds.py
3  the least maximum over all splits, exactly                                                   dynamic_program.py
4  the splits whose bound is below the best step so far, in rounds                              splits.py
5  of those the schedule's law; and predict_time, from the best law on, until no law is below the best step

So the bound that is returned holds for every split: it is the best step found, where all splits of a lower bound were
looked at, else the least bound that is left. Equals: less time, less memory (both at nine digits), then the split whose
first stages are smaller, of those looked at.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import LayerTime
from meshwright.costmodels.layout import FloatArray, IntArray, Layout, LayoutTable, Recompute
from meshwright.costmodels.pipeline_bubble import LayerSeconds
from meshwright.costmodels.pipeline_messages import pipeline_communication_s
from meshwright.costmodels.predict import layer_times, predict_memory, predict_time
from meshwright.costmodels.schedule import micro_batches
from meshwright.costmodels.stages import chunk_sizes
from meshwright.costmodels.synchronisation import tied_embedding_s
from meshwright.planner.layout.objective import rounded
from meshwright.planner.stages.figures import Figures, longest_s
from meshwright.planner.stages.lower_bounds import least_costs_s
from meshwright.planner.stages.options import Options, options_of
from meshwright.planner.stages.split_laws import split_steps_s
from meshwright.planner.stages.splits import Costs, SplitsBelow, splits_below

# Prefixes to keep in each round, and whether by bound.
ROUNDS = ((64, True), (256, False), (2048, True))
# Layouts whose times are asked for at once.
BATCH = 8
# Two sums of the same seconds in another order differ by less.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The best layout found, its step and its peak as nvidia-smi counts it, and a bound that no split is below."""

    layout: Layout
    step_time_s: float
    peak_bytes: float
    bound_s: float

    @property
    def is_optimal(self) -> bool:
        """Whether no split is faster."""
        return self.bound_s >= self.step_time_s * (1 - ROUNDING)


def best_cut(
    job: Job, layout: Layout, *, memory_limit_bytes: float, below_s: float, split: tuple[int, ...] | None = None
) -> Cut | None:
    """Find the split and the recomputation by stage with the least step time, below `below_s`.

    None where no split fits the memory limit, or where it is certain that none takes less than `below_s`. A split that
    takes longer is given where that isn't certain; its bound says what is left.

    Args:
        job: the job.
        layout: degrees, ZeRO, recomputation, micro-batch and a schedule of one chunk a stage: gpipe, 1f1b, zb-h1 or
            zb-2p, of several stages. Recomputation that it asks for may be of some layers or none.
        memory_limit_bytes: what a device may use, as nvidia-smi counts it.
        below_s: a step time that is of no use any more.
        split: layers of each stage, where they aren't to be chosen.

    Raises MissingData as predict_time does.

    """
    layout = replace(layout, split=(), recompute_split=(), recompute_layers=None)
    kinds = layer_times(job, LayoutTable.of([layout]))
    longest = _longest(job, layout, kinds, below_s=below_s)
    if longest * layout.pipeline_parallel < len(job.model.layers):
        return None
    best: Cut | None = None
    left_s = below_s
    for options in options_of(
        job, layout, kinds, memory_limit_bytes=memory_limit_bytes, longest=longest, below_s=below_s, split=split
    ):
        best, unseen_s = _Problem.of(job, layout, options, below_s=below_s).better(best)
        left_s = min(left_s, unseen_s)
    if best is None or min(best.step_time_s, left_s) >= below_s:
        return None
    return replace(best, bound_s=min(best.step_time_s, left_s))


def _longest(job: Job, layout: Layout, kinds: Sequence[LayerTime], *, below_s: float) -> int:
    """Give how many layers a stage has at most where one alone takes less than `below_s`, and the others have one."""
    each_s = [float(layer.forward_s[0] + layer.backward_s[0]) for layer in map(LayerSeconds.of, kinds)]
    until_s = np.cumsum([0.0, *(each_s[kind] for kind in job.model.kind_of_layer)])
    total = float(micro_batches(job.global_batch, LayoutTable.of([layout]))[0])
    most = len(job.model.layers) - layout.pipeline_parallel + 1
    sizes = range(1, most + 1)
    return sum(total * float((until_s[size:] - until_s[:-size]).min()) < below_s for size in sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    """One problem: what stages may hold, and what that costs at least.

    total: micro-batches of a step. rest_s: what of a step doesn't depend on the split, at least.
    costs: what a step takes at least by each option. below_s: a step time that is of no use any more.
    """

    job: Job
    layout: Layout
    options: Options
    total: float
    rest_s: float
    costs: Costs
    below_s: float

    @classmethod
    def of(cls, job: Job, layout: Layout, options: Options, *, below_s: float) -> Self:
        table = LayoutTable.of([layout])
        total = micro_batches(job.global_batch, table)
        whole_s = longest_s(layout, options.figures.busy_s, below_s=below_s, total=total)
        messages_s, _ = pipeline_communication_s(job, table, total, whole_s)
        rest_s = float(messages_s[0] + tied_embedding_s(job, table)[0]) + job.stack.step_overhead
        costs_s = rest_s + least_costs_s(layout, options, total=float(total[0]), together=job.stack.steps_together)
        return cls(
            job=job,
            layout=layout,
            options=options,
            total=float(total[0]),
            rest_s=rest_s,
            costs=Costs.of(costs_s, options.sizes),
            below_s=below_s,
        )

    def better(self, best: Cut | None) -> tuple[Cut | None, float]:
        """Give the best of a cut and of this problem's, and the least bound of what wasn't looked at."""
        left_s = 0.0
        for most, by_bound in ROUNDS:
            limit_s = self.below_s if best is None else min(self.below_s, best.step_time_s)
            splits = splits_below(self.costs, limit_s=limit_s, most=most, by_bound=by_bound)
            best, left_s = self._fastest(splits, best), max(left_s, min(splits.left_s, limit_s))
            if best is None or left_s >= best.step_time_s * (1 - ROUNDING):
                break
        return best, left_s

    def _fastest(self, splits: SplitsBelow, best: Cut | None) -> Cut | None:
        """Give the best of a cut and of some splits."""
        stage = np.arange(self.layout.pipeline_parallel)
        figures = self.options.figures.at(stage, splits.starts, splits.options)
        laws_s = rounded(self._laws_s(figures))
        order = np.lexsort([rounded(figures.peak_bytes.max(axis=1)), laws_s])
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            if best is not None and laws_s[rows[0]] >= _key(best)[0]:
                break
            best = min([*self._cuts(splits, rows), *([best] if best else [])], key=_key)
        return best

    def _laws_s(self, figures: Figures) -> FloatArray:
        """Give the step of some splits by their schedule's law, at least, [splits], of figures [splits, stages]."""
        together = self.job.stack.steps_together
        return split_steps_s(self.layout, figures, total=self.total, together=together) + self.rest_s

    def _cuts(self, splits: SplitsBelow, rows: IntArray) -> Iterator[Cut]:
        """Predict some splits."""
        layouts = [self._layout(splits.starts[row], splits.options[row]) for row in rows]
        table = LayoutTable.of(layouts)
        steps_s = predict_time(self.job, table).step_time_s
        peaks = predict_memory(self.job, table).nvidia_smi_bytes
        for layout, step_s, peak in zip(layouts, steps_s, peaks, strict=True):
            yield Cut(layout=layout, step_time_s=float(step_s), peak_bytes=float(peak), bound_s=float(step_s))

    def _layout(self, starts: IntArray, options: IntArray) -> Layout:
        """Give a split as a layout, which says nothing of what is even, of all layers or of none."""
        model = self.job.model
        sizes = tuple(map(int, self.options.sizes[options]))
        counts = tuple(map(int, self.options.recomputed[np.arange(len(starts)), starts, options]))
        even = sizes == chunk_sizes(len(model.layers), len(sizes))
        most = (*sizes[:-1], sizes[-1] + model.mtp_layers)
        number = max(counts) if counts != most and self._is_one_number(counts, most) else None
        return replace(
            self.layout,
            split=() if even else sizes,
            recompute=self.layout.recompute if any(counts) else Recompute.NONE,
            recompute_layers=number,
            recompute_split=() if counts == most or number is not None or not any(counts) else counts,
        )

    def _is_one_number(self, counts: Sequence[int], most: Sequence[int]) -> bool:
        """Say whether one number of layers of each stage says the same; of unlike layers it is a share of each kind."""
        alike = self.layout.recompute is Recompute.FULL and len(self.job.model.layer_kinds) == 1
        return alike and any(counts) and tuple(counts) == tuple(min(max(counts), layers) for layers in most)


def _key(cut: Cut) -> tuple[float, float]:
    time_s, peak = rounded(np.array([cut.step_time_s, cut.peak_bytes]))
    return float(time_s), float(peak)
