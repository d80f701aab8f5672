"""The search against plain loops, the laws of its Pareto front, ties by hand, and what it says where nothing fits."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.errors import Infeasible, SolverFailed
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable, Recompute
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.costmodels.prediction import TimePrediction
from meshwright.planner.layout import evaluation as evaluation_module
from meshwright.planner.layout import search as search_module
from meshwright.planner.layout.description import describe
from meshwright.planner.layout.evaluation import NO_MEMORY
from meshwright.planner.layout.front import Front, joined, mesh_numbers
from meshwright.planner.layout.least_recomputed import every_count
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.objective import Objective, best_first, rounded, world_sizes
from meshwright.planner.layout.question import Question, SearchResult
from meshwright.planner.layout.search import SLOWER, UNTRIED, search
from meshwright.planner.layout.space import space_of

MakeJob = Callable[..., Job]
GIB = 2**30
Evaluated = list[tuple[Layout, float, float]]


@pytest.fixture(scope="module")
def job(toy_job: MakeJob) -> Job:
    return toy_job(8, global_batch=8, hidden=4096, heads=32, kv_heads=8, ffn_hidden=14336, layers=12)


@pytest.fixture(scope="module")
def everything(job: Job) -> Evaluated:
    """Every legal layout, predicted in one call, with its time and memory at nine digits."""
    space = space_of(job)
    table, _ = every_count(job, space.table(space.leaves(space.twigs(space.branches.rows).rows).rows))
    times, memory = predict_time(job, table).step_time_s, predict_memory(job, table).nvidia_smi_bytes
    return [(table.row(row), float(f"{times[row]:.9g}"), float(f"{memory[row]:.9g}")) for row in range(len(table))]


def mesh(layout: Layout) -> tuple[int, ...]:
    return (
        layout.tensor_parallel,
        layout.context_parallel,
        layout.pipeline_parallel,
        layout.data_parallel,
        layout.expert_parallel,
    )


def found(result: SearchResult) -> list[tuple[float, float]]:
    return [(item.step_time_s, item.peak_bytes) for item in (result.best, *result.alternatives)]


@pytest.mark.parametrize("limit_gib", [80, 40, 24, 16])
def test_least_time_is_that_of_a_loop(job: Job, everything: Evaluated, limit_gib: int) -> None:
    fitting = [item for item in everything if item[2] <= limit_gib * GIB]
    best_of_mesh: dict[tuple[int, ...], tuple[float, float]] = {}
    for layout, time, memory in fitting:
        best_of_mesh[mesh(layout)] = min(best_of_mesh.get(mesh(layout), (np.inf, np.inf)), (time, memory))
    result = search([job], Question(objective=Objective.TIME, memory_limit_bytes=limit_gib * GIB, top=4))
    assert found(result) == sorted(best_of_mesh.values())[:5]
    assert len({mesh(item.layout) for item in (result.best, *result.alternatives)}) == min(5, len(best_of_mesh))
    assert len(found(result)) <= result.feasible <= len(fitting)
    assert result.lower_bound == result.best.step_time_s
    assert result.candidates == result.feasible + sum(result.rejected.values())


def test_least_memory_is_that_of_a_loop(job: Job, everything: Evaluated) -> None:
    fitting = [item for item in everything if item[2] <= 80 * GIB]
    fastest = min(time for _, time, _ in fitting)
    admitted = [item for item in fitting if item[1] <= 1.1 * fastest]
    result = search([job], Question(objective=Objective.MEMORY, memory_limit_bytes=80 * GIB, top=0))
    assert result.best.peak_bytes == min(memory for _, _, memory in admitted)
    assert result.best.step_time_s <= 1.1 * fastest
    assert result.lower_bound == result.value == result.best.peak_bytes
    assert result.alternatives == ()


def test_least_cost_may_use_fewer_devices(toy_job: MakeJob) -> None:
    sizes = [toy_job(devices, global_batch=16, layers=4, hidden=512, heads=8, head_dim=64) for devices in (32, 16, 8)]
    result = search(sizes, Question(objective=Objective.COST, memory_limit_bytes=80 * GIB, top=3))
    alone = [search([job], Question(objective=Objective.TIME, memory_limit_bytes=80 * GIB, top=0)) for job in sizes]
    costs = [job.cluster.devices * one.best.step_time_s for job, one in zip(sizes, alone, strict=True)]
    cheapest = int(np.argmin(costs))
    assert cheapest == 2
    assert result.best == alone[cheapest].best
    assert result.candidates == sum(one.candidates for one in alone)
    assert result.lower_bound == result.value == pytest.approx(min(costs))


@pytest.mark.parametrize(("branches", "twigs"), [(1, 1), (7, 3), (50, 10**6)])
def test_the_order_of_opening_decides_nothing(
    job: Job, monkeypatch: pytest.MonkeyPatch, branches: int, twigs: int
) -> None:
    question = Question(objective=Objective.TIME, memory_limit_bytes=40 * GIB, top=10)
    whole = search([job], question)
    monkeypatch.setattr(search_module, "BRANCHES", branches)
    monkeypatch.setattr(search_module, "TWIGS", twigs)
    other = search([job], question)
    assert (other.best, other.alternatives, other.lower_bound) == (whole.best, whole.alternatives, whole.lower_bound)


def test_a_search_without_time_says_what_it_proved(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    question = Question(objective=Objective.TIME, memory_limit_bytes=40 * GIB, top=0)
    proved = search([job], question)
    monkeypatch.setattr(search_module, "TWIGS", 1)
    monkeypatch.setattr(search_module, "BRANCHES", 1)
    hurried = search([job], replace(question, time_limit_s=0.0))
    assert hurried.lower_bound <= proved.best.step_time_s <= hurried.best.step_time_s
    assert hurried.lower_bound < hurried.best.step_time_s
    assert hurried.rejected[UNTRIED] > 0
    assert hurried.candidates == hurried.feasible + sum(hurried.rejected.values())
    assert search([job], replace(question, time_limit_s=1e6)).best == proved.best


def test_equal_times_and_memory_go_to_lower_degrees(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def constant(_: Job, layouts: LayoutTable) -> TimePrediction:
        return TimePrediction(breakdown={"all": np.ones(len(layouts))}, model_flop=1.0)

    monkeypatch.setattr(evaluation_module, "predict_time", constant)
    even = replace(job, stack=job.stack.model_copy(update={"splits": "even"}))
    result = search([even], Question(objective=Objective.TIME, memory_limit_bytes=80 * GIB, top=10**6))
    layouts = [item.layout for item in (result.best, *result.alternatives)]
    memory = [item.peak_bytes for item in (result.best, *result.alternatives)]
    keys = [
        (peak, layout.tensor_parallel, layout.pipeline_parallel, layout.context_parallel)
        for peak, layout in zip(memory, layouts, strict=True)
    ]
    assert keys == sorted(keys)


def test_the_last_bits_of_a_time_decide_nothing() -> None:
    """Two meshes a rounding error apart: the one with the lower tensor degree wins, whichever came out faster."""
    table = LayoutTable.of([Layout(tensor_parallel=2), Layout(data_parallel=2)])
    for times in ([1.0, 1.0 + 1e-12], [1.0 + 1e-12, 1.0]):
        front = Front(layouts=table, step_time_s=rounded(np.array(times)), peak_bytes=np.array([5.0, 5.0]))
        assert best_first(Objective.TIME, front).layouts.tensor_parallel.tolist() == [1, 2]


def test_rounding_keeps_nine_digits() -> None:
    values = np.array([123456789.4, 1.0, 9.99999999951, 1.23456789049e-5, 8.5899345920123e10])
    assert rounded(values).tolist() == pytest.approx([123456789.0, 1.0, 10.0, 1.23456789e-5, 8.58993459e10], rel=1e-15)


def test_nothing_fits(job: Job, everything: Evaluated) -> None:
    least = min(memory for _, _, memory in everything)
    with pytest.raises(Infeasible, match=r"no layout of toy-model on 8 devices .* fits in 4\.0 GiB a device") as caught:
        search([job], Question(objective=Objective.TIME, memory_limit_bytes=4 * GIB, top=5))
    assert f"needs {least / GIB:.1f} GiB of 4.0 GiB" in caught.value.nearest_miss
    assert caught.value.rejected[NO_MEMORY] >= len(everything)
    assert SLOWER not in caught.value.rejected
    assert sum(caught.value.rejected.values()) == space_of(job).candidates
    larger = Limits(fix={"micro_batch": 2})
    with pytest.raises(Infeasible, match=r"under --fix micro_batch=2 fits in 4\.0 GiB a device") as caught:
        search([job], Question(objective=Objective.TIME, memory_limit_bytes=4 * GIB, top=5, limits=larger))
    assert "micro-batch 2" in caught.value.nearest_miss


def test_the_nearest_miss_fits_where_the_limit_is_raised_to_it(job: Job, everything: Evaluated) -> None:
    least = min(memory for _, _, memory in everything)
    result = search([job], Question(objective=Objective.TIME, memory_limit_bytes=int(least), top=0))
    assert result.best.peak_bytes == least
    with pytest.raises(Infeasible):
        search([job], Question(objective=Objective.TIME, memory_limit_bytes=int(least) - 1, top=0))


def test_nothing_is_legal(toy_job: MakeJob) -> None:
    job = toy_job(7, global_batch=1, layers=4)
    with pytest.raises(Infeasible, match=r"no layout of toy-model on 7 devices .* is legal") as caught:
        search([job], Question(objective=Objective.TIME, memory_limit_bytes=80 * GIB, top=5))
    assert caught.value.nearest_miss == ""
    assert sum(caught.value.rejected.values()) == space_of(job).candidates


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0, -1.0])
def test_a_time_that_is_no_number_is_a_fault(job: Job, monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    def broken(_: Job, layouts: LayoutTable) -> TimePrediction:
        seconds = np.ones(len(layouts))
        seconds[-1] = wrong
        return TimePrediction(breakdown={"all": seconds}, model_flop=1.0)

    monkeypatch.setattr(evaluation_module, "predict_time", broken)
    with pytest.raises(SolverFailed, match="gives no step time for Layout"):
        search([job], Question(objective=Objective.TIME, memory_limit_bytes=80 * GIB, top=5))


POINTS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=40)


def front_of(points: list[tuple[int, int, int]]) -> Front:
    """Make layouts of the meshes of these numbers, with these times and bytes; the micro-batch tells rows apart."""
    return Front(
        layouts=LayoutTable.of(
            [Layout(data_parallel=degree, micro_batch=row + 1) for row, (degree, _, _) in enumerate(points)]
        ),
        step_time_s=np.array([float(time) for _, time, _ in points]),
        peak_bytes=np.array([float(memory) for _, _, memory in points]),
    )


@given(POINTS)
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, int, int]]) -> None:
    kept = front_of(points).reduced()
    got = list(
        zip(kept.layouts.data_parallel.tolist(), kept.step_time_s.tolist(), kept.peak_bytes.tolist(), strict=True)
    )
    expected = {
        (degree, time, memory)
        for degree, time, memory in points
        if not any(
            other[0] == degree and other[1] <= time and other[2] <= memory and other[1:] != (time, memory)
            for other in points
        )
    }
    assert len(got) == len(set(got))
    assert set(got) == expected
    firsts = [points.index((int(degree), int(time), int(memory))) + 1 for degree, time, memory in got]
    assert kept.layouts.micro_batch.tolist() == firsts


@given(POINTS, POINTS)
def test_fronts_of_parts_make_the_front_of_the_whole(
    left: list[tuple[int, int, int]], right: list[tuple[int, int, int]]
) -> None:
    parts = joined([front_of(left).reduced(), front_of(right).reduced()]).reduced()
    whole = front_of(left + right).reduced()
    assert parts.layouts.data_parallel.tolist() == whole.layouts.data_parallel.tolist()
    assert parts.step_time_s.tolist() == whole.step_time_s.tolist()
    assert parts.peak_bytes.tolist() == whole.peak_bytes.tolist()


def test_mesh_numbers_tell_meshes_apart() -> None:
    table = LayoutTable.of(
        [Layout(tensor_parallel=2), Layout(data_parallel=2), Layout(tensor_parallel=2, zero_stage=1), Layout()]
    )
    numbers = mesh_numbers(table).tolist()
    assert numbers[0] == numbers[2]
    assert len(set(numbers)) == 3
    assert world_sizes(table).tolist() == [2, 2, 2, 1]


def test_a_layout_in_one_line() -> None:
    layout = Layout(tensor_parallel=2, pipeline_parallel=4, data_parallel=8, zero_stage=1, zero_shard=8, micro_batch=2)
    assert describe(layout) == "tp 2, pp 4, dp 8, ZeRO-1, 1f1b, micro-batch 2"
    assert describe(Layout()) == "one device, micro-batch 1"
    for method, words in (("ulysses", "Ulysses"), ("hybrid", "Ulysses over 2 and a ring"), ("ring", "ring")):
        long = Layout(context_parallel=4, context_method=ContextMethod(method), ulysses_parallel=2)
        assert describe(long) == f"cp 4 by {words}, micro-batch 1"
    uneven = Layout(pipeline_parallel=2, split=(3, 5), vocabulary_parallel=True)
    assert describe(uneven) == "pp 2, 1f1b, chunks of 3-5 layers, vocabulary parallel, micro-batch 1"
    some = Layout(pipeline_parallel=2, recompute=Recompute.FULL, recompute_split=(2, 0))
    assert describe(some) == "pp 2, full recompute of 2-0 layers, 1f1b, micro-batch 1"
