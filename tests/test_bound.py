"""The bounds against full enumerations: nothing that fits is faster than the bound of its branch or of its twig."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from meshwright.catalog.lookup import entry_names, stack_named
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, Layout, LayoutTable, Recompute
from meshwright.costmodels.parameters import total_parameters
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner.job_inputs import inputs_of, job_of
from meshwright.planner.layout.bound import branch_bound_s, cut_bound_s, twig_bound_s
from meshwright.planner.layout.space import Grown, Space, space_of, taken

MakeJob = Callable[..., Job]
GIB = 2**30
EXPERTS = {"experts": 8, "top_k": 2, "ffn_hidden": 1024, "shared_ffn_hidden": 512, "dense_layers": 1}
WIDE = {"hidden": 4096, "heads": 32, "kv_heads": 8, "ffn_hidden": 14336}


def checked(job: Job, limits_bytes: list[int], *, some: int = 10**9) -> tuple[FloatArray, Space, Grown, Grown]:
    """Hold both bounds against all leaves of `some` evenly spread branches; give the times of the leaves."""
    space = space_of(job)
    step = max(1, len(space.branches) // some)
    branches = taken(space.branches.rows, slice(None, None, step))
    twigs = space.twigs(branches)
    leaves = space.leaves(twigs.rows)
    layouts = space.table(leaves.rows)
    time_s = predict_time(job, layouts).step_time_s
    memory = predict_memory(job, layouts).nvidia_smi_bytes
    least_s = branch_bound_s(job, space.table(branches))[twigs.parent][leaves.parent]
    assert (least_s <= time_s * (1 + 1e-9)).all()
    for limit in limits_bytes:
        bound_s = twig_bound_s(job, space.table(twigs.rows), memory_limit_bytes=limit)[leaves.parent]
        over = np.where(memory <= limit, bound_s / time_s, 0.0)
        worst = int(over.argmax())
        assert over[worst] <= 1 + 1e-9, f"{over[worst]} x {time_s[worst]} s, {limit / GIB} GiB, {layouts.row(worst)}"
    return time_s, space, twigs, leaves


@pytest.mark.parametrize("stack", entry_names("stacks"))
@pytest.mark.parametrize("experts", [None, EXPERTS])
def test_no_layout_of_any_software_is_faster(stack: str, experts: dict[str, int] | None, toy_job: MakeJob) -> None:
    job = toy_job(16, global_batch=32, layers=6, experts=experts, **WIDE)
    checked(replace(job, stack=stack_named(stack)), [gib * GIB for gib in (6, 8, 10, 14, 20, 40)], some=300)


def test_a_twig_copies_into_and_out_of_buffers(toy_job: MakeJob) -> None:
    # ZeRO-3 over 8 ranks, 2 micro-batches: each reads 2 and writes 2 bytes of a parameter twice, and of its gradient
    # reads 2 and writes 4, beside nothing.
    job = toy_job(8, global_batch=16, layers=6, **WIDE)
    job = replace(job, stack=stack_named("fsdp2"))
    twig = LayoutTable.of([Layout(data_parallel=8, zero_stage=3, zero_shard=8)])
    free = replace(job, stack=job.stack.model_copy(update={"packs_gradients": False, "unpacks_parameters": False}))
    with_copies, without = (float(twig_bound_s(each, twig, memory_limit_bytes=80 * GIB)[0]) for each in (job, free))
    device = job.cluster.device
    rate = device.calibration.streaming * device.memory_bandwidth_bytes_per_s
    copied_bytes = 2 * (2 * 4 + 6) * total_parameters(job.model)
    assert with_copies - without == pytest.approx(copied_bytes / rate)


@pytest.mark.parametrize("schedule", list(Schedule))
def test_no_layout_of_any_schedule_is_faster(schedule: Schedule, toy_job: MakeJob) -> None:
    job = toy_job(8, global_batch=16, layers=8, **WIDE)
    stack = job.stack.model_copy(update={"schedules": (schedule,), "vocabulary_parallel": True})
    checked(replace(job, stack=stack), [gib * GIB for gib in (8, 10, 12, 16, 24, 40)])


@settings(max_examples=15, deadline=None)
@given(
    devices=st.sampled_from([4, 8, 12, 16, 24]),
    global_batch=st.sampled_from([8, 12, 24, 64]),
    layers=st.integers(2, 12),
    hidden=st.sampled_from([1024, 4096]),
    mixture=st.booleans(),
    mtp_layers=st.integers(0, 1),
    limit_gib=st.integers(4, 60),
    sequence_length=st.sampled_from([1024, 4096]),
)
def test_no_layout_is_faster(toy_job: MakeJob, limit_gib: int, *, mixture: bool, **asked: int) -> None:
    devices = asked.pop("devices")
    experts = EXPERTS if mixture else None
    job = toy_job(devices, experts=experts, heads=16, kv_heads=16, head_dim=64, ffn_hidden=4096, **asked)
    assume(len(space_of(job).branches))
    checked(job, [limit_gib * GIB], some=200)


@pytest.mark.parametrize(
    ("model", "cluster", "global_batch"),
    [
        ("megatron-1t", "selene:3072", 3072),
        ("deepseek-v3", "dgx-h100:2048", 15360),
        ("bloom-176b", "frontier:512", 512),
    ],
)
def test_no_large_layout_is_faster(model: str, cluster: str, global_batch: int) -> None:
    asked = {"precision": "bf16", "objective": "time", "top": 5, "memory_headroom": 0.05}
    inputs = inputs_of(model, cluster, global_batch=global_batch, sequence_length=2048, **asked)
    job = job_of(inputs, devices=inputs.cluster.entry.devices)
    checked(job, [40 * GIB, 60 * GIB, 76 * GIB], some=250)


def test_bounds_are_near_what_they_bound(toy_job: MakeJob) -> None:
    """Half of the branches of a dense model that fits are within 25 % of their best layout."""
    job = toy_job(16, global_batch=64, layers=16, **WIDE)
    time_s, space, twigs, leaves = checked(job, [])
    best_s = np.full(len(space.branches), np.inf)
    np.minimum.at(best_s, twigs.parent[leaves.parent], time_s)
    bound_s = branch_bound_s(job, space.table(space.branches.rows))
    assert np.median(best_s / bound_s) < 1.25


def test_what_one_device_cannot_avoid_is_all_of_its_step(toy_job: MakeJob) -> None:
    """Nothing is recomputed, sent or waited for: work, adding up gradients and the optimizer are the step."""
    job = replace(toy_job(1, global_batch=8, layers=4, **WIDE), stack=stack_named("megatron-core"))
    space = space_of(job)
    twigs = space.table(space.twigs(space.branches.rows).rows)
    bound_s = twig_bound_s(job, twigs, memory_limit_bytes=10**14)
    assert bound_s == pytest.approx(predict_time(job, twigs).step_time_s, rel=1e-12)


def test_what_cannot_fit_has_no_finite_bound(toy_job: MakeJob) -> None:
    job = toy_job(8, global_batch=16, layers=8, **WIDE)
    space = space_of(job)
    twigs = space.table(space.twigs(space.branches.rows).rows)
    assert np.isinf(twig_bound_s(job, twigs, memory_limit_bytes=GIB)).all()
    assert np.isfinite(twig_bound_s(job, twigs, memory_limit_bytes=10**14)).all()


@settings(max_examples=25, deadline=None)
@example(seed=0, layers=4, global_batch=24, mixture=False, vocabulary=200_000, limit_gib=5, together=False)
@given(
    seed=st.integers(0, 10**6),
    layers=st.integers(4, 12),
    global_batch=st.sampled_from([16, 24, 64]),
    mixture=st.booleans(),
    vocabulary=st.sampled_from([1000, 200_000]),
    limit_gib=st.integers(5, 60),
    together=st.booleans(),
)
def test_no_cut_into_stages_is_faster(
    toy_job: MakeJob,
    seed: int,
    layers: int,
    global_batch: int,
    *,
    mixture: bool,
    vocabulary: int,
    limit_gib: int,
    together: bool,
) -> None:
    """Layers of one chunk a stage, cut at random, with recomputation at random."""
    asked = {"layers": layers, "vocab": vocabulary, "heads": 16, "kv_heads": 16, "head_dim": 64, "ffn_hidden": 4096}
    job = toy_job(8, global_batch=global_batch, hidden=1024, experts=EXPERTS if mixture else None, **asked)
    job = replace(job, stack=job.stack.model_copy(update={"steps_together": together}))
    space, random = space_of(job), np.random.default_rng(seed)
    rows = space.twigs(space.branches.rows).rows
    several = np.flatnonzero((rows["pipeline_parallel"] > 1) & (rows["pipeline_parallel"] <= layers))
    twigs = space.table(taken(rows, random.choice(several, size=60)))
    layouts = [cut_at_random(twigs.row(row), layers, job.model.mtp_layers, random) for row in range(len(twigs))]
    table = LayoutTable.of(layouts)
    time_s, memory = predict_time(job, table).step_time_s, predict_memory(job, table).nvidia_smi_bytes
    for zero_bubble, below_s in itertools.product((False, True), (np.inf, float(np.median(time_s)))):
        bound_s = cut_bound_s(job, twigs, memory_limit_bytes=limit_gib * GIB, zero_bubble=zero_bubble, below_s=below_s)
        family = ZERO_BUBBLE if zero_bubble else IN_TURN
        of_family = replace(job, stack=job.stack.model_copy(update={"schedules": family, "vocabulary_parallel": False}))
        closer_s = cut_bound_s(
            of_family, twigs, memory_limit_bytes=limit_gib * GIB, zero_bubble=zero_bubble, below_s=below_s
        )
        assert (closer_s >= bound_s * (1 - 1e-9)).all()
        own = np.array([layout.schedule in family for layout in layouts]) & (time_s < below_s)
        assert np.where(own & (memory <= limit_gib * GIB), closer_s / time_s, 0.0).max() <= 1 + 1e-9
        concerned = np.array([zero_bubble or layout.schedule in IN_TURN for layout in layouts]) & (time_s < below_s)
        over = np.where(concerned & (memory <= limit_gib * GIB), bound_s / time_s, 0.0)
        assert over.max() <= 1 + 1e-9, layouts[int(over.argmax())]


@pytest.mark.parametrize("slower", [1, 30])
@pytest.mark.parametrize("vocabulary", [1000, 200_000])
@pytest.mark.parametrize("family", ["in turn", "zero bubble"])
def test_no_cut_at_all_is_faster(toy_job: MakeJob, vocabulary: int, slower: float, family: str) -> None:
    """Every cut into two stages and every number of recomputed layers, with light and heavy ends, over slow networks.

    A head as heavy as four layers leaves its stage one of six.
    """
    schedules = IN_TURN if family == "in turn" else ZERO_BUBBLE
    asked = {"vocab": vocabulary, "heads": 16, "kv_heads": 16, "head_dim": 64, "ffn_hidden": 4096}
    job = toy_job(4, global_batch=24, layers=6, hidden=1024, **asked)
    tiers = tuple(
        replace(tier, bandwidth_bytes_per_s=tier.bandwidth_bytes_per_s / slower) for tier in job.cluster.tiers
    )
    stack = job.stack.model_copy(update={"schedules": schedules, "vocabulary_parallel": False})
    job = replace(job, cluster=replace(job.cluster, tiers=tiers), stack=stack)
    space = space_of(job)
    rows = space.twigs(space.branches.rows).rows
    in_two = np.flatnonzero((rows["pipeline_parallel"] == 2) & (rows["micro_batch"] <= 2))
    twigs = space.table(taken(rows, in_two))
    bound_s = cut_bound_s(
        job, twigs, memory_limit_bytes=10**13, zero_bubble=family == "zero bubble", below_s=float("inf")
    )
    for place, bound in enumerate(bound_s):
        twig = replace(twigs.row(place), schedule=schedules[-1])
        cuts = [cut for sizes in zip(range(1, 6), range(5, 0, -1), strict=True) for cut in recomputed_in(twig, sizes)]
        assert bound <= predict_time(job, LayoutTable.of(cuts)).step_time_s.min() * (1 + 1e-9), twig


def recomputed_in(layout: Layout, sizes: tuple[int, ...]) -> list[Layout]:
    """Give a cut with each number of recomputed layers of each stage."""
    cut = replace(layout, split=sizes, recompute=Recompute.NONE, recompute_split=())
    counts = [each for each in itertools.product(*(range(size + 1) for size in sizes)) if any(each)]
    modes = (Recompute.SELECTIVE, Recompute.FULL)
    return [cut, *(replace(cut, recompute=mode, recompute_split=each) for mode in modes for each in counts)]


IN_TURN = (Schedule.GPIPE, Schedule.ONE_F_ONE_B)
ZERO_BUBBLE = (Schedule.ZERO_BUBBLE_H1, Schedule.ZERO_BUBBLE_2P)


def cut_at_random(layout: Layout, layers: int, mtp_layers: int, random: np.random.Generator) -> Layout:
    stages = layout.pipeline_parallel
    cuts = np.sort(random.choice(np.arange(1, layers), size=stages - 1, replace=False))
    sizes = tuple(int(size) for size in np.diff([0, *cuts, layers]))
    counts = tuple(int(random.integers(0, size + 1)) for size in (*sizes[:-1], sizes[-1] + mtp_layers))
    mode = list(Recompute)[random.integers(0, 3)]
    schedules = (*IN_TURN, *ZERO_BUBBLE)
    return replace(
        layout,
        split=sizes,
        recompute=mode,
        recompute_split=() if mode is Recompute.NONE else counts,
        schedule=schedules[random.integers(0, len(schedules))],
    )
