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

from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import RecomputeBy
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, IntArray, Layout, LayoutTable, Recompute
from meshwright.costmodels.predict import layer_times
from meshwright.costmodels.schedule import StageTimes, alike, waiting_s
from meshwright.planner.layout.objective import rounded
from meshwright.planner.mixed.chain_configs import Configurations, waits_s
from meshwright.planner.stages.figures import Figures, figures_of
from meshwright.planner.stages.lower_bounds import least_costs_s
from meshwright.planner.stages.options import Options
from meshwright.planner.stages.segments import Segments
from meshwright.planner.stages.splits import Costs, splits_below

# Prefixes to keep in each round, and whether by bound, as planner/stages does.
ROUNDS = ((64, True), (256, False))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainCut:
    """A chain with its layers dealt: of each stage its island's position, its layers, and how many it computes again.

    layouts: of each island, pipeline_parallel being its own stages. total: micro-batches of a replica.
    forward_s, backward_s: of each stage for one micro-batch, with the messages that it waits for; end_s: once a step.
    peak_bytes: of each stage.
    """

    layouts: tuple[Layout, ...]
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
    """What the stages of one configuration may hold: options of planner/stages, with the messages in their passes."""

    layouts: tuple[Layout, ...]
    island: IntArray
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
    even: bool = False,
) -> Solved:
    """Find how to deal the layers of a configuration, in less than `below_s`.

    Args:
        found: the configurations of a chain.
        row: which of them.
        total: micro-batches of a replica.
        memory_limits_bytes: what a device of each island may use.
        below_s: a step time that is of no use any more.
        even: all stages hold as many layers, where that is possible, else one more or less.

    """
    stages = stages_of(found, row, total=total, memory_limits_bytes=memory_limits_bytes, below_s=below_s, even=even)
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
    count, width = figures.busy_s.shape
    times = StageTimes(
        stage=np.broadcast_to(np.arange(width)[:, np.newaxis], (width, count)),
        steps=np.ones((width, count), dtype=np.int64),
        forward_s=figures.forward_s.T[np.newaxis],
        backward_s=figures.backward_s.T[np.newaxis],
        weight_s=figures.weight_s.T[np.newaxis],
    )
    (group,) = alike(LayoutTable.of([stages.chain]))
    bubble_s = waiting_s(
        group.schedule,
        times,
        passes=np.full(count, total),
        pipeline=np.full(count, width),
        together=stages.job.stack.steps_together,
    )
    return np.asarray(total * times.busiest_s + bubble_s + figures.end_s.max(axis=1))


def stages_of(
    found: Configurations,
    row: int,
    *,
    total: int,
    memory_limits_bytes: Sequence[int],
    below_s: float,
    even: bool = False,
) -> Stages | None:
    """Give what the stages of a configuration may hold; None where no split can take less than `below_s`."""
    own = tuple(_layout(member.layouts.row(row)) for member in found.members)
    counts = [layout.pipeline_parallel for layout in own]
    pipeline, layers = sum(counts), len(found.members[0].job.model.layers)
    shortest_s = min(float(member.layer_s[row]) for member in found.members)
    longest = int(min(below_s / (total * shortest_s), layers - pipeline + 1))
    if even:
        longest = min(longest, -(-layers // pipeline))
    if longest * pipeline < layers:
        return None
    into, back = waits_s(
        counts, [float(member.message_s[row]) for member in found.members], list(found.crossing_s[:, row])
    )
    segments = Segments.of(found.members[0].job.model, longest=longest)
    parts = []
    begin = 0
    for member, layout, limit in zip(found.members, own, memory_limits_bytes, strict=True):
        batch = total * layout.data_parallel * layout.micro_batch
        job = replace(member.job, global_batch=batch)
        figures, recomputed = _figures(job, replace(layout, pipeline_parallel=pipeline), segments, limit, below_s)
        rows = slice(begin, begin + layout.pipeline_parallel)
        parts.append(({name: value[rows] for name, value in figures.items()}, recomputed[rows]))
        begin += layout.pipeline_parallel
    joined = {name: np.concatenate([part[name] for part, _ in parts]) for name in parts[0][0]}
    joined["forward_s"] = joined["forward_s"] + into[:, np.newaxis]
    joined["backward_s"] = joined["backward_s"] + back[:, np.newaxis]
    options = _options(pipeline, segments, joined, np.concatenate([part[1] for part in parts]))
    if even:
        small, more = divmod(layers, pipeline)
        options = replace(
            options, is_open=options.is_open & ((options.sizes == small) | ((options.sizes == small + 1) & (more > 0)))
        )
    island = np.repeat(np.arange(len(own)), counts)
    return Stages(layouts=own, island=island, options=options, job=found.members[0].job)


def _layout(layout: Layout) -> Layout:
    """Give the layout of an island's stages: 1F1B, the optimizer sharded over the replicas, recomputation as needed."""
    ranks = layout.data_parallel * layout.context_parallel
    return replace(
        layout,
        schedule=Schedule.ONE_F_ONE_B,
        zero_stage=1 if ranks > 1 else 0,
        zero_shard=ranks,
        gradient_shard=None,
        parameter_shard=None,
        backward_shard=None,
        recompute=Recompute.FULL,
        recompute_layers=None,
    )


def _figures(
    job: Job, layout: Layout, segments: Segments, limit: int, below_s: float
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
    fits = rounded(figures.peak_bytes) <= limit
    least = np.where(fits.any(axis=2), fits.argmax(axis=2), fits.shape[2] - 1)
    stage, run = np.indices(least.shape)
    chosen = figures.at(stage, run, least)
    values = {item.name: getattr(chosen, item.name) for item in fields(chosen)}
    values["peak_bytes"] = np.where(fits.any(axis=2), values["peak_bytes"], np.inf)
    return values, numbers[stage, run, least]


def _options(pipeline: int, segments: Segments, figures: dict[str, FloatArray], recomputed: IntArray) -> Options:
    layers, longest = segments.run.shape
    stage = np.arange(pipeline)[:, np.newaxis, np.newaxis]
    start, sizes = np.arange(layers)[:, np.newaxis], np.arange(1, longest + 1)
    end = start + sizes
    fits = np.isfinite(figures["peak_bytes"])[stage, segments.run]
    is_open = fits & (start >= stage) & (end <= layers - (pipeline - 1 - stage))
    is_open &= ((stage > 0) | (start == 0)) & ((stage < pipeline - 1) | (end == layers))
    return Options(
        sizes=sizes,
        recomputed=recomputed[stage, segments.run],
        figures=Figures(**{name: value[stage, segments.run] for name, value in figures.items()}),
        is_open=is_open,
    )


def _cut(stages: Stages, starts: IntArray, options: IntArray, total: int, step_s: float) -> ChainCut:
    number = np.arange(len(stages.island))
    each = stages.options.figures.at(number, starts, options)
    layers = tuple(map(int, stages.options.sizes[options]))
    again = tuple(map(int, stages.options.recomputed[number, starts, options]))
    layouts = []
    for position, layout in enumerate(stages.layouts):
        own = np.flatnonzero(stages.island == position)
        counts = tuple(again[stage] for stage in own)
        recompute = Recompute.FULL if any(counts) else Recompute.NONE
        split = tuple(layers[stage] for stage in own)
        layouts.append(
            replace(layout, split=split, recompute=recompute, recompute_split=counts if any(counts) else ())
        )
    return ChainCut(
        layouts=tuple(layouts),
        island=tuple(map(int, stages.island)),
        layers=layers,
        recomputed=again,
        total=total,
        forward_s=tuple(map(float, each.forward_s)),
        backward_s=tuple(map(float, each.backward_s)),
        end_s=tuple(map(float, each.end_s)),
        peak_bytes=tuple(map(float, each.peak_bytes)),
        step_time_s=step_s,
    )
