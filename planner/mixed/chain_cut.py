"""The best way to deal a model's layers to the stages of one configuration of a chain.

The problem is that of planner/stages, with stages of several islands: what a stage takes and needs for each segment of
layers that it may hold are its own island's figures, and its passes are longer by the messages that it waits for. Of
each segment as few layers are computed again as its island's memory asks for. The least over all splits is found by the
same dynamic program and lower bounds; a split's step is

    T = 1F1B's law of the stages' passes + the longest end of a stage + overhead

with no more terms, so that the bound is exact where all splits of a lower bound were looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from meshwright.catalog.stack_entry import RecomputeBy
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray, Layout, LayoutTable, Recompute
from meshwright.costmodels.predict import layer_times
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.objective import rounded
from meshwright.planner.mixed.chain_configs import Configurations, slowed_s
from meshwright.planner.mixed.chain_members import chain_layout
from meshwright.planner.stages.figures import Figures, figures_of
from meshwright.planner.stages.lower_bounds import least_costs_s
from meshwright.planner.stages.options import Options
from meshwright.planner.stages.segments import Segments
from meshwright.planner.stages.split_laws import split_steps_s
from meshwright.planner.stages.splits import Costs, splits_below

# Prefixes to keep in each round, and whether by bound, as planner/stages does.
ROUNDS = ((64, True), (256, False))

Known = dict[tuple[int, Layout, int, int, int], tuple[dict[str, FloatArray], IntArray]]
"""Figures of stages and what they recompute, by island, layout, micro-batches, longest segment and memory limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainCut:
    """A chain with its layers dealt: of each stage its island's position, its layers, and how many it computes again.

    layouts: of each island, pipeline_parallel being its own stages. total: micro-batches of a replica.
    crossing_s: a message over each link; buffered: it runs beside passes, and isn't waited for.
    forward_s, backward_s: of each stage for one micro-batch, with the messages that it waits for; end_s: once a step.
    peak_bytes: of each stage.
    """

    layouts: tuple[Layout, ...]
    crossing_s: tuple[float, ...]
    buffered: bool
    island: tuple[int, ...]
    layers: tuple[int, ...]
    recomputed: tuple[int, ...]
    total: int
    forward_s: tuple[float, ...]
    backward_s: tuple[float, ...]
    end_s: tuple[float, ...]
    peak_bytes: tuple[float, ...]
    step_time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """The best cut of a configuration, None where none below a time was found, and what no cut of it takes less than.

    Cuts that take as long as that time or longer don't count.
    """

    cut: ChainCut | None
    bound_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """What the stages of one configuration may hold: options of planner/stages, with the messages in their passes.

    island: of each stage the position of its island in the chain, -1 of a link that is like a stage. seen: the share of
    the micro-batches that passes each, by which its passes are multiplied.
    """

    layouts: tuple[Layout, ...]
    crossing_s: tuple[float, ...]
    buffered: bool
    island: IntArray
    seen: FloatArray
    options: Options
    job: Job

    @property
    def chain(self) -> Layout:
        """The layout that the schedule's law is asked with."""
        return replace(self.layouts[0], pipeline_parallel=len(self.island))


def best_chain_cut(
    found: Configurations,
    row: int,
    *,
    total: int,
    memory_limits_bytes: Sequence[int],
    below_s: float,
    known: Known,
    even: bool = False,
    skipped: float = 0.0,
) -> Solved:
    """Find how to deal the layers of a configuration, in less than `below_s`.

    Args:
        found: the configurations of a chain.
        row: which of them.
        total: micro-batches of a replica.
        memory_limits_bytes: what a device of each island may use.
        below_s: a step time that is of no use any more.
        known: figures of islands' stages that were worked out before; what is new is added.
        skipped: of the stages between the ends, the share that a micro-batch skips: passes count the less there, and
            the step is only what that comes to in the mean.
        even: all stages hold as many layers, where that is possible, else one more or less.

    """
    stages = stages_of(
        found,
        row,
        total=total,
        memory_limits_bytes=memory_limits_bytes,
        below_s=below_s,
        known=known,
        even=even,
        skipped=skipped,
    )
    if stages is None:
        return Solved(cut=None, bound_s=below_s)
    overhead_s = stages.job.stack.step_overhead
    costs_s = overhead_s + least_costs_s(
        stages.chain, stages.options, total=float(total), together=stages.job.stack.steps_together
    )
    costs = Costs.of(costs_s, stages.options.sizes)
    best: ChainCut | None = None
    left_s = 0.0
    if not np.isfinite(costs.least_s[0, 0]) or costs.least_s[0, 0] >= below_s:
        return Solved(cut=None, bound_s=float(costs.least_s[0, 0]))
    for most, by_bound in ROUNDS:
        limit_s = below_s if best is None else min(below_s, best.step_time_s)
        splits = splits_below(costs, limit_s=limit_s, most=most, by_bound=by_bound)
        if len(splits.starts):
            each = stages.options.figures.at(np.arange(len(stages.island)), splits.starts, splits.options)
            steps_s = rounded(steps_of(stages, each, total=float(total)) + overhead_s)
            first = int(np.lexsort([rounded(each.peak_bytes.max(axis=1)), steps_s])[0])
            if best is None or steps_s[first] < best.step_time_s:
                best = _cut(stages, splits.starts[first], splits.options[first], total, float(steps_s[first]))
        left_s = max(left_s, min(splits.left_s, limit_s))
        if best is None or left_s >= best.step_time_s * (1 - 1e-9):
            break
    bound_s = left_s if best is None else min(best.step_time_s, left_s)
    kept = best if best is not None and best.step_time_s < below_s else None
    return Solved(cut=kept, bound_s=bound_s)


def steps_of(stages: Stages, figures: Figures, *, total: float) -> FloatArray:
    """Give the steps of some splits without overhead, [splits], of figures [splits, stages]."""
    return split_steps_s(stages.chain, figures, total=total, together=stages.job.stack.steps_together)


def stages_of(
    found: Configurations,
    row: int,
    *,
    total: int,
    memory_limits_bytes: Sequence[int],
    below_s: float,
    known: Known,
    even: bool = False,
    skipped: float = 0.0,
) -> Stages | None:
    """Give what the stages of a configuration may hold; None where no split can take less than `below_s`."""
    own = tuple(chain_layout(member.layouts.row(row)) for member in found.members)
    layers, pipeline = len(found.members[0].job.model.layers), int(found.stages[row])
    crossing = tuple(float(each) for each in found.crossing_s[:, row])
    island = _islands([layout.pipeline_parallel for layout in own], buffered=found.buffered)
    holding = int((island >= 0).sum())
    shortest_s = min(float(member.shortest_s[row]) for member in found.members)
    longest = int(min(below_s / (total * shortest_s), layers - holding + 1))
    even = even or found.members[0].limits.fixes_split
    if even:
        longest = min(longest, -(-layers // holding))
    if longest * holding < layers:
        return None
    segments = Segments.of(found.members[0].job.model, longest=longest)
    width = len(segments.sizes)
    values = {item.name: np.zeros((pipeline, width)) for item in fields(Figures)}
    recomputed = np.zeros((pipeline, width), dtype=np.int64)
    for position, (member, layout, limit) in enumerate(zip(found.members, own, memory_limits_bytes, strict=True)):
        key = (member.island, replace(layout, pipeline_parallel=pipeline), total, longest, limit)
        if key not in known:
            batch = total * layout.data_parallel * layout.micro_batch
            job = replace(member.job, global_batch=batch)
            known[key] = _figures(job, key[1], segments, limit, below_s, limits=member.limits)
        figures, again = known[key]
        rows = island == position
        for name, value in figures.items():
            values[name][rows] = value[rows]
        recomputed[rows] = again[rows]
    into_s, back_s = _waits_s(found, row, island)
    values["forward_s"] = values["forward_s"] + into_s[:, np.newaxis]
    values["backward_s"] = values["backward_s"] + back_s[:, np.newaxis]
    seen = np.full(pipeline, 1.0 - skipped)
    seen[[0, -1]] = 1.0
    for name in ("forward_s", "backward_s"):
        values[name] = values[name] * seen[:, np.newaxis]
    options = _options(segments, values, recomputed, holds=island >= 0)
    if even:
        small, more = divmod(layers, holding)
        kept = (options.sizes == small) | ((options.sizes == small + 1) & (more > 0)) | (options.sizes == 0)
        options = replace(options, is_open=options.is_open & kept)
    return Stages(
        layouts=own,
        crossing_s=crossing,
        buffered=found.buffered,
        island=island,
        seen=seen,
        options=options,
        job=found.members[0].job,
    )


def _islands(stages: Sequence[int], *, buffered: bool) -> IntArray:
    """Give the position in the chain of each stage's island, -1 of links that are like stages."""
    every: list[int] = []
    for position, count in enumerate(stages):
        every += [-1] * (buffered and position > 0) + [position] * count
    return np.array(every)


def _waits_s(found: Configurations, row: int, island: IntArray) -> tuple[FloatArray, FloatArray]:
    """Give by how much messages lengthen the forward and the backward passes of each stage, [stages]."""
    into_s, back_s = np.zeros(len(island)), np.zeros(len(island))
    for position, member in enumerate(found.members):
        own = np.flatnonzero(island == position)
        into_s[own[1:]] = back_s[own[:-1]] = float(member.message_s[row])
        if position:
            message = found.crossing_s[position - 1, row]
            before = found.members[position - 1]
            if found.buffered:
                link, last = own[0] - 1, own[0] - 2
                into_s[link] = back_s[link] = float(message)
                into_s[own[0]] = float(slowed_s(member.job, message))
                back_s[last] = float(slowed_s(before.job, message))
            else:
                into_s[own[0]] = back_s[own[0] - 1] = float(message)
    return into_s, back_s


def _figures(
    job: Job, layout: Layout, segments: Segments, limit: int, below_s: float, *, limits: Limits
) -> tuple[dict[str, FloatArray], IntArray]:
    """Give the figures of each stage and run where it recomputes the least that fits, [stages, runs], and how many.

    The bytes are infinite where it doesn't fit.
    """
    is_last = np.arange(layout.pipeline_parallel)[:, np.newaxis] == layout.pipeline_parallel - 1
    most = segments.sizes + job.model.mtp_layers * is_last
    numbers = np.minimum(np.arange(most.max() + 1), most[..., np.newaxis])
    if job.stack.recompute_by is RecomputeBy.ALL:
        numbers = np.stack([np.zeros_like(most), most], axis=2)
    kinds = layer_times(job, LayoutTable.of([layout]))
    figures = figures_of(job, layout, kinds, segments, numbers, below_s=below_s)
    fits = (rounded(figures.peak_bytes) <= limit) & _asked_again(numbers, limits)
    least = np.where(fits.any(axis=2), fits.argmax(axis=2), fits.shape[2] - 1)
    stage, run = np.indices(least.shape)
    chosen = figures.at(stage, run, least)
    values = {item.name: getattr(chosen, item.name) for item in fields(chosen)}
    values["peak_bytes"] = np.where(fits.any(axis=2), values["peak_bytes"], np.inf)
    return values, numbers[stage, run, least]


def _asked_again(numbers: IntArray, limits: Limits) -> BoolArray:
    """Give which numbers of layers may be computed again by what is asked of that."""
    counts = limits.recompute_counts(int(numbers.max(initial=0)))
    allowed = np.isin(numbers, counts) & limits.allows("recompute", value=Recompute.FULL)
    return np.where(numbers == 0, limits.allows("recompute", value=Recompute.NONE), allowed)


def _options(segments: Segments, figures: dict[str, FloatArray], recomputed: IntArray, *, holds: BoolArray) -> Options:
    """Give what each stage may hold; those that hold no layers have one option, of size 0, open nowhere else."""
    layers, longest = segments.run.shape
    pipeline = len(holds)
    stage = np.arange(pipeline)[:, np.newaxis, np.newaxis]
    start, sizes = np.arange(layers)[:, np.newaxis], np.arange(0, longest + 1)
    run = np.column_stack([np.zeros(layers, dtype=np.int64), segments.run])
    end = start + sizes
    until = np.cumsum(holds)[:, np.newaxis, np.newaxis]
    fits = np.isfinite(figures["peak_bytes"])[stage, run]
    is_open = fits & (start >= until - holds[:, np.newaxis, np.newaxis]) & (end <= layers - (until[-1] - until))
    is_open &= ((stage > 0) | (start == 0)) & ((stage < pipeline - 1) | (end == layers))
    is_open &= (sizes > 0) == holds[:, np.newaxis, np.newaxis]
    return Options(
        sizes=sizes,
        recomputed=recomputed[stage, run],
        figures=Figures(**{name: value[stage, run] for name, value in figures.items()}),
        is_open=is_open,
    )


def _cut(stages: Stages, starts: IntArray, options: IntArray, total: int, step_s: float) -> ChainCut:
    real = np.flatnonzero(stages.island >= 0)
    each = stages.options.figures.at(real, starts[real], options[real])
    layers = tuple(map(int, stages.options.sizes[options[real]]))
    again = tuple(map(int, stages.options.recomputed[real, starts[real], options[real]]))
    island = tuple(map(int, stages.island[real]))
    layouts = []
    for position, layout in enumerate(stages.layouts):
        own = [stage for stage, holder in enumerate(island) if holder == position]
        counts = tuple(again[stage] for stage in own)
        layouts.append(
            replace(
                layout,
                split=tuple(layers[stage] for stage in own),
                recompute=Recompute.FULL if any(counts) else Recompute.NONE,
                recompute_split=counts if any(counts) else (),
            )
        )
    return ChainCut(
        layouts=tuple(layouts),
        crossing_s=stages.crossing_s,
        buffered=stages.buffered,
        island=island,
        layers=layers,
        recomputed=again,
        total=total,
        forward_s=tuple(map(float, each.forward_s / stages.seen[real])),
        backward_s=tuple(map(float, each.backward_s / stages.seen[real])),
        end_s=tuple(map(float, each.end_s)),
        peak_bytes=tuple(map(float, each.peak_bytes)),
        step_time_s=step_s,
    )
