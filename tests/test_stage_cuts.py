"""The best cut of a model into stages: against every split and every recomputation, and against an integer program."""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import RecomputeBy, Splits
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray, Layout, LayoutTable, Recompute
from meshwright.costmodels.predict import layer_times, predict_memory, predict_time
from meshwright.costmodels.stages import chunk_sizes
from meshwright.planner.layout.objective import rounded
from meshwright.planner.stages import Cut, best_cut
from meshwright.planner.stages.dynamic_program import least_maxima, least_sums_before, least_sums_behind
from meshwright.planner.stages.integer_program import least_maximum
from meshwright.planner.stages.lower_bounds import least_costs_s
from meshwright.planner.stages.options import options_of
from meshwright.planner.stages.splits import Costs, splits_below

MODELS: dict[str, dict[str, Any]] = {
    "dense": {"layers": 7, "tied_embeddings": True},
    "large vocabulary": {"layers": 8, "vocab": 200000},
    "mixture": {
        "layers": 7,
        "experts": {"experts": 8, "top_k": 2, "ffn_hidden": 1024, "dense_layers": 2},
        "mtp_layers": 1,
    },
}
STACKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "overlapping": {"overlap_gradients": True, "overlap_parameters": True},
    "apart": {"steps_together": False},
    "flat": {"flat_optimizer": True, "fused_accumulation": False, "keeps_stage_outputs": True},
}
SCHEDULES = (Schedule.GPIPE, Schedule.ONE_F_ONE_B, Schedule.ZERO_BUBBLE_H1, Schedule.ZERO_BUBBLE_2P)
UNLIMITED = 2**60


def splits_of(layers: int, stages: int) -> Iterator[tuple[int, ...]]:
    for cuts in itertools.combinations(range(1, layers), stages - 1):
        yield tuple(end - start for start, end in itertools.pairwise((0, *cuts, layers)))


def every_layout(job: Job, layout: Layout) -> list[Layout]:
    """Every split with every recomputation that the stack can express."""
    found = []
    by = job.stack.recompute_by
    if by is RecomputeBy.CHUNK and layout.recompute is Recompute.SELECTIVE:
        by = RecomputeBy.ALL
    for sizes in splits_of(len(job.model.layers), layout.pipeline_parallel):
        most = (*sizes[:-1], sizes[-1] + job.model.mtp_layers)
        counts: list[tuple[int, ...]] = [most]
        if by is RecomputeBy.CHUNK:
            counts = [tuple(min(count, size) for size in most) for count in range(max(most) + 1)]
        elif by is RecomputeBy.STAGE:
            counts = list(itertools.product(*(range(size + 1) for size in most)))
        if layout.recompute is Recompute.NONE:
            counts = [()]
        found += [replace(layout, split=sizes, recompute_split=each) for each in counts]
    return found


def measures(job: Job, layouts: list[Layout]) -> tuple[FloatArray, FloatArray]:
    """Give the step times and the peaks."""
    table = LayoutTable.of(layouts)
    return predict_time(job, table).step_time_s, rounded(predict_memory(job, table).nvidia_smi_bytes)


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, Any], Layout, float]:
    """Draw the keywords of a job, a layout, and how tight its memory is."""
    schedule = draw(st.sampled_from(SCHEDULES))
    stages, replicas = draw(st.sampled_from([2, 3, 4])), draw(st.sampled_from([1, 2, 4]))
    micro_batches = draw(st.sampled_from([1, 2, 3, 4, 8, 16]))
    if schedule in {Schedule.ZERO_BUBBLE_H1, Schedule.ZERO_BUBBLE_2P}:
        micro_batches = max(micro_batches, stages)
    stack = STACKS[draw(st.sampled_from(sorted(STACKS)))] | {"recompute_by": draw(st.sampled_from(RecomputeBy))}
    zero_stage = draw(st.sampled_from([0, 1, 2, 3])) if replicas > 1 else 0
    layout = Layout(
        pipeline_parallel=stages,
        data_parallel=replicas,
        zero_stage=zero_stage,
        zero_shard=replicas if zero_stage else 1,
        recompute=draw(st.sampled_from(Recompute)),
        schedule=schedule,
        vocabulary_parallel=draw(st.integers(0, 4)) == 0,
    )
    asked = {
        "model": MODELS[draw(st.sampled_from(sorted(MODELS)))],
        "stack": stack,
        "cluster": {"devices": 64},
        "global_batch": micro_batches * replicas,
    }
    return asked, layout, draw(st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]))


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_the_best_cut_is_the_best_of_all(
    round_job: Callable[..., Job], problem: tuple[dict[str, Any], Layout, float]
) -> None:
    asked, layout, tightness = problem
    job = round_job(**asked)
    steps_s, peaks = measures(job, every_layout(job, layout))
    limit = float(np.quantile(peaks, tightness, method="lower"))
    best_s = steps_s[peaks <= limit].min()
    found = best_cut(job, layout, memory_limit_bytes=limit, below_s=np.inf)
    assert found is not None
    alone_s, alone_peak = measures(job, [found.layout])
    assert (found.step_time_s, rounded(np.array([found.peak_bytes]))[0]) == (alone_s[0], alone_peak[0])
    assert alone_peak[0] <= limit
    assert found.bound_s <= best_s * (1 + 1e-12)
    assert found.is_optimal
    assert found.step_time_s == pytest.approx(best_s, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(problem=problems())
def test_the_programs_agree(round_job: Callable[..., Job], problem: tuple[dict[str, Any], Layout, float]) -> None:
    asked, layout, tightness = problem
    job = round_job(**asked)
    steps_s, peaks = measures(job, every_layout(job, layout))
    limit = float(np.quantile(peaks, tightness, method="lower"))
    kinds = layer_times(job, LayoutTable.of([layout]))
    total = asked["global_batch"] / layout.data_parallel
    bounds = []
    for options in options_of(job, layout, kinds, memory_limit_bytes=limit, longest=6, below_s=np.inf):
        costs = least_costs_s(layout, options, total=total, together=job.stack.steps_together)
        least = least_maxima(costs, options.sizes)[0, 0]
        solved = least_maximum(costs, options.sizes)
        if solved is None:
            assert least == np.inf
        else:
            assert solved.low * (1 - 1e-9) <= least <= solved.high * (1 + 1e-9)
        bounds.append(least)
    assert min(bounds) < steps_s[peaks <= limit].min()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("micro_batches", [4, 16, 64])
def test_no_split_goes_below_the_bound(round_job: Callable[..., Job], schedule: Schedule, micro_batches: int) -> None:
    # Of 30 layers on 10 stages there are ten million splits; a thousand of them, most near the even one.
    job = round_job(model=MODELS["mixture"] | {"layers": 30}, global_batch=micro_batches)
    layout = Layout(pipeline_parallel=10, recompute=Recompute.FULL, schedule=schedule)
    chance = random.Random(micro_batches)
    rows = []
    for _ in range(1000):
        sizes = list(chunk_sizes(30, 10))
        for _ in range(chance.randrange(12)):
            giver, taker = chance.sample(range(10), 2)
            moved = min(1, sizes[giver] - 1)
            sizes[giver], sizes[taker] = sizes[giver] - moved, sizes[taker] + moved
        counts = tuple(chance.randint(0, size) for size in sizes)
        rows.append(replace(layout, split=tuple(sizes), recompute_split=counts))
    steps_s, peaks = measures(job, rows)
    limit = float(np.median(peaks))
    found = best_cut(job, layout, memory_limit_bytes=limit, below_s=1.05 * float(steps_s[peaks <= limit].min()))
    assert found is not None
    assert found.bound_s <= steps_s[peaks <= limit].min()
    assert found.step_time_s <= 1.001 * steps_s[peaks <= limit].min()


def cut_of(job: Job, *, limit: float = UNLIMITED, below_s: float = np.inf, **layout: Any) -> Cut | None:  # noqa: ANN401 - fields of a layout
    return best_cut(job, Layout(**layout), memory_limit_bytes=limit, below_s=below_s)


def test_a_large_head_leaves_its_stage_fewer_layers(round_job: Callable[..., Job]) -> None:
    # A layer's products are 12 h^2 a token, a head's V h: of V = 12 h, 60 h and 120 h it weighs like 1 to 10 layers.
    sizes = []
    for width in (12, 60, 120):
        job = round_job(model={"layers": 16, "vocab": width * 1024}, global_batch=64)
        found = cut_of(job, pipeline_parallel=2)
        assert found is not None
        first, last = found.layout.split or (8, 8)
        beside = [Layout(pipeline_parallel=2, split=(first + moved, last - moved)) for moved in (-1, 0, 1)]
        assert int(measures(job, beside)[0].argmin()) == 1
        sizes.append(last)
    assert sizes[0] > sizes[1] > sizes[2]


def test_early_stages_recompute_more_where_memory_is_tight(round_job: Callable[..., Job]) -> None:
    # 1F1B holds P - s micro-batches on stage s (arXiv 2104.04473), so that the first is the one short of memory.
    job = round_job(model={"layers": 16, "vocab": 128}, global_batch=64, stack={"splits": Splits.EVEN})
    layout = Layout(pipeline_parallel=4, recompute=Recompute.FULL)
    none, full = measures(job, [replace(layout, recompute=Recompute.NONE), layout])[1]
    found = best_cut(job, layout, memory_limit_bytes=(none + full) / 2, below_s=np.inf)
    assert found is not None
    counts = found.layout.recompute_split
    assert counts[0] > 0 == counts[-1]
    assert list(counts) == sorted(counts, reverse=True)


def test_one_number_says_what_each_stage_recomputes_alike(round_job: Callable[..., Job]) -> None:
    stack = {"splits": Splits.EVEN, "recompute_by": RecomputeBy.CHUNK}
    job = round_job(model={"layers": 16, "vocab": 128}, global_batch=64, stack=stack)
    layout = Layout(pipeline_parallel=4, recompute=Recompute.FULL)
    none, full = measures(job, [replace(layout, recompute=Recompute.NONE), layout])[1]
    found = best_cut(job, layout, memory_limit_bytes=(none + full) / 2, below_s=np.inf)
    assert found is not None
    assert found.layout.recompute_split == ()
    number = found.layout.recompute_layers
    assert number is not None
    assert 0 < number < 4
    listed = replace(found.layout, recompute_layers=None, recompute_split=(number,) * 4)
    assert measures(job, [listed]) == measures(job, [found.layout])


def test_what_needs_no_recomputation_and_is_even_says_nothing(round_job: Callable[..., Job]) -> None:
    job = round_job(model={"vocab": 128}, global_batch=64)
    found = cut_of(job, pipeline_parallel=4, recompute=Recompute.FULL)
    assert found is not None
    assert found.layout == Layout(pipeline_parallel=4)
    kept = round_job(model={"vocab": 128}, global_batch=64, stack={"recompute_by": RecomputeBy.ALL})
    assert cut_of(kept, pipeline_parallel=4, recompute=Recompute.FULL).layout == Layout(  # type: ignore[union-attr]
        pipeline_parallel=4, recompute=Recompute.FULL
    )


def test_a_stack_of_even_splits_has_no_other(round_job: Callable[..., Job]) -> None:
    asked = {"model": MODELS["large vocabulary"] | {"layers": 7}, "global_batch": 64}
    found, even = (cut_of(round_job(**asked, stack={"splits": how}), pipeline_parallel=4) for how in Splits)
    assert found is not None
    assert even is not None
    assert found.layout.split == ()
    assert even.layout.split
    assert even.step_time_s < found.step_time_s


def test_nothing_is_found_where_nothing_fits_or_is_fast_enough(round_job: Callable[..., Job]) -> None:
    job = round_job(global_batch=64)
    best = cut_of(job, pipeline_parallel=4)
    assert best is not None
    assert cut_of(job, pipeline_parallel=4, limit=1) is None
    assert cut_of(job, pipeline_parallel=9) is None
    assert cut_of(job, pipeline_parallel=4, below_s=best.bound_s) is None
    assert cut_of(job, pipeline_parallel=4, below_s=best.bound_s / 2) is None
    assert cut_of(job, pipeline_parallel=4, below_s=1.001 * best.step_time_s) == best


costs_and_sizes = st.integers(0, 2**32).map(lambda seed: random_costs(np.random.default_rng(seed)))


def random_costs(chance: np.random.Generator) -> tuple[FloatArray, IntArray]:
    """Costs of up to 4 stages of up to 7 layers and of two options a size, some of which aren't open."""
    stages = int(chance.integers(2, 5))
    layers = int(chance.integers(stages, 8))
    sizes = np.repeat(np.arange(1, layers - stages + 2), 2)
    costs = chance.uniform(0.5, 2.0, (stages, layers, len(sizes)))
    closed: BoolArray = chance.random(costs.shape) < 0.2
    start, end = np.arange(layers)[:, np.newaxis], np.arange(layers)[:, np.newaxis] + sizes
    closed |= end > layers
    closed[0] |= start > 0
    closed[1:] |= start == 0
    closed[-1] |= end < layers
    closed[:-1] |= end == layers
    return np.where(closed, np.inf, costs), sizes


def by_hand(costs: FloatArray, sizes: IntArray) -> list[tuple[float, ...]]:
    """The costs of the stages of every split."""
    found: list[tuple[float, ...]] = []

    def grow(stage: int, start: int, taken: tuple[float, ...]) -> None:
        if stage == len(costs):
            found.extend([taken] if start == costs.shape[1] else [])
            return
        for option in range(len(sizes)) if start < costs.shape[1] else ():
            if np.isfinite(costs[stage, start, option]):
                grow(stage + 1, start + int(sizes[option]), (*taken, float(costs[stage, start, option])))

    grow(0, 0, ())
    return found


@settings(max_examples=60, deadline=None)
@given(drawn=costs_and_sizes, most=st.sampled_from([1, 3, 10**6]), by_bound=st.booleans(), share=st.floats(1.0, 2.0))
def test_the_dynamic_programs_are_exact(
    drawn: tuple[FloatArray, IntArray], most: int, by_bound: bool, share: float
) -> None:
    costs, sizes = drawn
    splits = by_hand(costs, sizes)
    least = min(map(max, splits), default=np.inf)
    values = least_maxima(costs, sizes)
    assert values[0, 0] == least
    total = min(map(sum, splits), default=np.inf)
    assert least_sums_behind(costs, sizes)[0, 0] == pytest.approx(total)
    assert least_sums_before(costs, sizes)[-1, -1] == pytest.approx(total)
    limit = min(share * least, 10.0)
    below = splits_below(Costs.of(costs, sizes), limit_s=limit, most=most, by_bound=by_bound)
    stage = np.arange(len(costs))
    seen = {tuple(costs[stage, *rows].tolist()) for rows in zip(below.starts, below.options, strict=True)}
    wanted = {split for split in splits if max(split) < limit}
    assert seen <= wanted
    assert below.left_s <= min(map(max, wanted - seen), default=np.inf)
    assert len(seen) == min(len(wanted), most) or most == 3
