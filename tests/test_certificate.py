"""What the search proves, against full enumerations by plain loops that share no code with it."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from plain_space import FEW, by_loops

from meshwright.catalog.lookup import stack_named
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable, Recompute
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.question import Question
from meshwright.planner.layout.search import search

MakeJob = Callable[..., Job]
GIB = 2**30
WIDE = {"hidden": 4096, "heads": 32, "kv_heads": 8, "ffn_hidden": 14336}
MIXTURE = {
    "hidden": 2048,
    "heads": 16,
    "kv_heads": 16,
    "ffn_hidden": 8192,
    "experts": {"experts": 8, "top_k": 2, "ffn_hidden": 4096, "dense_layers": 1},
    "mtp_layers": 1,
}
HYBRID = WIDE | {"linear_attention": {"frequency": 2, "block": 256, "gated": True}}
Priced = list[tuple[float, float, Layout]]


def counted(job: Job, layout: Layout) -> list[Layout]:
    """Give a layout once for each number of recomputed layers that "as few as fit" may come to."""
    if layout.recompute_layers != FEW:
        return [layout]
    most = -(-len(job.model.layers) // (layout.pipeline_parallel * layout.virtual_pipeline)) - 1
    return [replace(layout, recompute_layers=count) for count in range(1, most + 1)]


def priced(job: Job) -> Priced:
    """Evaluate every legal layout."""
    _, legal = by_loops(job)
    layouts = [one for layout in sorted(legal, key=repr) for one in counted(job, layout)]
    found: Priced = []
    for start in range(0, len(layouts), 4096):
        some = layouts[start : start + 4096]
        table = LayoutTable.of(some)
        times, memory = predict_time(job, table).step_time_s, predict_memory(job, table).nvidia_smi_bytes
        found += [(float(f"{t:.9g}"), float(f"{m:.9g}"), one) for t, m, one in zip(times, memory, some, strict=True)]
    return found


def mesh(layout: Layout) -> tuple[int, ...]:
    degrees = (layout.tensor_parallel, layout.context_parallel, layout.pipeline_parallel, layout.data_parallel)
    return (*degrees, layout.expert_parallel)


def made(job: Job, stack: str, *, schedules: tuple[Schedule, ...] | None = None) -> Job:
    entry = stack_named(stack)
    return replace(job, stack=entry if schedules is None else entry.model_copy(update={"schedules": schedules}))


CASES = {
    "dense on megatron-core": lambda make: made(make(16, global_batch=32, layers=8, **WIDE), "megatron-core"),
    "mixture on megatron-core": lambda make: made(make(8, global_batch=16, layers=6, **MIXTURE), "megatron-core"),
    "all schedules": lambda make: made(
        make(8, global_batch=16, layers=8, **WIDE), "megatron-zero-bubble", schedules=tuple(Schedule)
    ),
    "dense on fsdp2": lambda make: made(make(12, global_batch=24, layers=6, **WIDE), "fsdp2"),
    "linear attention and softmax on mindspeed": lambda make: made(
        make(8, global_batch=8, sequence_length=32768, layers=5, **HYBRID), "mindspeed"
    ),
    "mixture on mindspeed": lambda make: made(make(16, global_batch=16, layers=4, **MIXTURE), "mindspeed"),
}


@pytest.mark.parametrize("case", CASES)
def test_no_layout_of_the_space_is_better(case: str, toy_job: MakeJob) -> None:
    job = CASES[case](toy_job)
    stack = job.stack.model_copy(update={"partitions": ("uniform",), "splits": "even"})
    job = replace(job, stack=stack)
    every = priced(job)
    memories = sorted(memory for _, memory, _ in every)
    for limit in (memories[0], memories[len(memories) // 8], memories[len(memories) // 2], memories[-1]):
        fitting = [item for item in every if item[1] <= limit]
        best_of_mesh: dict[tuple[int, ...], tuple[float, float]] = {}
        for time, memory, layout in fitting:
            best_of_mesh[mesh(layout)] = min(best_of_mesh.get(mesh(layout), (np.inf, np.inf)), (time, memory))
        result = search([job], Question(objective=Objective.TIME, memory_limit_bytes=int(limit), top=3))
        times = [one.step_time_s for one in (result.best, *result.alternatives)]
        assert times == [time for time, _ in sorted(best_of_mesh.values())[:4]]
        assert result.best.peak_bytes == min(best_of_mesh.values())[1]
        assert result.lower_bound == result.value == times[0]
        admitted = [item for item in fitting if item[0] <= 1.1 * times[0]]
        least = search([job], Question(objective=Objective.MEMORY, memory_limit_bytes=int(limit), top=0))
        assert least.value == least.lower_bound == min(memory for _, memory, _ in admitted)


def test_the_spaces_are_of_tens_of_thousands(toy_job: MakeJob) -> None:
    sizes = itertools.accumulate(len(by_loops(CASES[case](toy_job))[1]) for case in CASES)
    assert any(size > 20_000 for size in sizes)  # listing the rest takes a minute


def cut_in_all_ways(job: Job, layout: Layout) -> list[Layout]:
    """Give an evenly cut layout of 1F1B or GPipe with each split of its layers, and what stages may recompute."""
    layers, stages = len(job.model.layers), layout.pipeline_parallel
    found = []
    for cuts in itertools.combinations(range(1, layers), stages - 1):
        sizes = tuple(end - start for start, end in itertools.pairwise((0, *cuts, layers)))
        most = (*sizes[:-1], sizes[-1] + job.model.mtp_layers)
        if layout.recompute is not Recompute.FULL:
            found.append(replace(layout, split=sizes))
            continue
        for number in range(1, max(most) + 1):
            counts = tuple(min(number, own) for own in most)
            found.append(replace(layout, split=sizes, recompute_split=counts))
    return found


@pytest.mark.parametrize(("share", "vocabulary"), [(0.001, 32_000), (0.01, 400_000), (0.1, 400_000), (1, 250_000)])
def test_no_cut_of_the_layers_is_better(share: float, vocabulary: int, toy_job: MakeJob) -> None:
    """Every split of seven layers over up to four stages, where the head is as long as some of them."""
    job = made(toy_job(4, global_batch=24, layers=7, vocab=vocabulary, **WIDE), "megatron-core")
    stack = job.stack.model_copy(update={"axes": ("pipeline", "tensor"), "schedules": (Schedule.ONE_F_ONE_B,)})
    assert_best_of_all_cuts(replace(job, stack=stack), share=share)


def assert_best_of_all_cuts(job: Job, *, share: float) -> None:
    _, legal = by_loops(job)
    layouts = [one for layout in sorted(legal, key=repr) for one in counted(job, layout)]
    layouts += [
        one
        for layout in sorted(legal, key=repr)
        if layout.pipeline_parallel > 1 and layout.recompute_layers is None
        for one in cut_in_all_ways(job, layout)
    ]
    table = LayoutTable.of(layouts)
    memory = predict_memory(job, table).nvidia_smi_bytes
    # A little more, for memory is compared in nine digits.
    limit = int(np.quantile(memory, share) * (1 + 1e-8)) + 1
    times_s = np.array([float(f"{seconds:.9g}") for seconds in predict_time(job, table).step_time_s])
    best_s = times_s[memory <= limit].min()
    question = Question(objective=Objective.TIME, memory_limit_bytes=limit, top=0)
    result = search([job], question)
    assert result.best.step_time_s == best_s == result.lower_bound
    for slower_by in (0.0, 0.3):
        fast = (memory <= limit) & (times_s <= (1 + slower_by) * best_s)
        least = search([job], replace(question, objective=Objective.MEMORY, slower_by=slower_by))
        assert least.value == least.lower_bound == float(f"{memory[fast].min():.9g}")
        assert least.best.step_time_s <= (1 + slower_by) * best_s


@pytest.mark.parametrize("share", [0.01, 0.1, 1])
def test_no_cut_of_layers_of_two_kinds_is_better(share: float, toy_job: MakeJob) -> None:
    """The same of seven layers of which every other one attends linearly."""
    job = made(toy_job(4, global_batch=8, sequence_length=16384, layers=7, **HYBRID), "megatron-core")
    stack = job.stack.model_copy(update={"axes": ("pipeline", "context"), "schedules": (Schedule.ONE_F_ONE_B,)})
    assert_best_of_all_cuts(replace(job, stack=stack), share=share)


def test_an_uneven_cut_may_be_the_best(toy_job: MakeJob) -> None:
    job = made(toy_job(4, global_batch=23, layers=7, vocab=400_000, **WIDE), "megatron-core")
    stack = job.stack.model_copy(update={"axes": ("pipeline",), "schedules": (Schedule.ONE_F_ONE_B,)})
    question = Question(objective=Objective.TIME, memory_limit_bytes=60 * GIB, top=0)
    found = search([replace(job, stack=stack)], question)
    even = search([replace(job, stack=stack.model_copy(update={"splits": "even"}))], question)
    assert found.best.layout.split
    assert found.best.step_time_s < even.best.step_time_s
    leanest = search([replace(job, stack=stack)], replace(question, objective=Objective.MEMORY, slower_by=0.02))
    assert leanest.best.layout.split
    assert leanest.value < found.best.peak_bytes
