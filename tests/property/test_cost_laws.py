"""Laws that step time and memory obey for any legal layout of dense and mixture, grouped and latent models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.lookup import entry_names, stack_named
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import LossKernels, RecomputedModule
from meshwright.costmodels.activations import layer_activations
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import SCHEDULES, FloatArray, Layout, LayoutTable, Recompute
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.costmodels.prediction import Reading
from meshwright.costmodels.recompute import FULL
from meshwright.costmodels.stage_table import stage_table
from meshwright.costmodels.stages import FOLDED
from meshwright.costmodels.state import stage_parameters, state_bytes
from meshwright.costmodels.state_messages import state_messages
from meshwright.hardware.cluster import Cluster

DEVICES, BATCH, LAYERS = 512, 128, 16
ONE_F_ONE_B = SCHEDULES.index(Schedule.ONE_F_ONE_B)
V_SCHEDULES = [SCHEDULES.index(schedule) for schedule in (Schedule.V_HALF, Schedule.V_MIN)]
LATENT = {"query_rank": 256, "kv_rank": 128, "nope_head_dim": 64, "rope_head_dim": 32, "value_head_dim": 64}
MIXTURE = {"experts": 8, "top_k": 2, "ffn_hidden": 512, "dense_layers": 1, "shared_ffn_hidden": 256}
MODELS: Mapping[str, dict[str, Any]] = {
    "dense": {"tied_embeddings": True, "positions": "learned", "max_positions": 2048, "norm": "layer_norm"},
    "grouped": {"kv_heads": 2, "gated_mlp": True, "ffn_hidden": 3072, "window": 512, "window_frequency": 4},
    "mixture": {"experts": MIXTURE | {"shared_ffn_hidden": 0}, "kv_heads": 4, "gated_mlp": True},
    "latent mixture": {"experts": MIXTURE, "latent_attention": LATENT, "mtp_layers": 1, "gated_mlp": True},
}
STACKS: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "overlapping": {
        "overlap_gradients": True,
        "overlap_parameters": True,
        "overlap_tensor": True,
        "overlap_pipeline": True,
        "deduplicated_dispatch": True,
        "selective_recompute": (RecomputedModule.NORMS, RecomputedModule.ACTIVATION),
    },
    "old": {
        "fused_attention": False,
        "fused_norm": False,
        "fused_rotary": False,
        "fused_activation": False,
        "fused_residual": False,
        "permutation_bytes": 36,
        "fused_accumulation": False,
        "loss": LossKernels.OPERATORS,
        "dropout": True,
        "gradient_bytes": 2,
        "reduce_bytes": 2,
        "split_messages": True,
        "layer_launch": 1e-3,
        "collective_launch": 1e-4,
    },
    "sharded": {
        "selective_recompute": (RecomputedModule.EVERY_OTHER_PRODUCT,),
        "reshard_in_pipeline": False,
        "fused_accumulation": False,
        "master_bytes": 0,
        "keeps_stage_outputs": True,
        "flat_optimizer": True,
        "overlap_gradients": True,
        "overlap_parameters": True,
        "gather_efficiency": 0.7,
        "gathers_per_layer": 3,
    },
    "quantised": {
        "gradient_bytes": 2,
        "reduce_bytes": 2,
        "gather_bytes": 1,
        "quantised_reduction": True,
        "overlap_parameters": True,
    },
}
CLUSTER: dict[str, Any] = {"devices": DEVICES, "per_node": 8, "calibration": {"contention": 1.1}}

lawful = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def shards(draw: st.DrawFn, replicas: int) -> dict[str, int | None]:
    """Draw shards that nest, of which most layouts leave out some."""

    def part(whole: int) -> int:
        return draw(st.sampled_from([size for size in (1, 2, 4, 8, 16) if whole % size == 0]))

    zero_shard = part(replicas)
    parameter_shard = draw(st.sampled_from([None, part(zero_shard)]))
    return {
        "zero_shard": zero_shard,
        "gradient_shard": draw(st.sampled_from([None, part(zero_shard)])),
        "parameter_shard": parameter_shard,
        "backward_shard": draw(st.sampled_from([None, part(parameter_shard or zero_shard)])),
    }


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Draw a layout that is legal for every model of MODELS on at most 512 devices, with 128 sequences a step."""
    tensor = draw(st.sampled_from([1, 2, 4, 8]))
    context, pipeline, data = (draw(st.sampled_from([1, 2, 4])) for _ in range(3))
    schedule = draw(st.sampled_from(Schedule)) if pipeline > 1 else Schedule.ONE_F_ONE_B
    expert = draw(st.sampled_from([size for size in (1, 2, 4, 8) if tensor * context * data % size == 0]))
    rest = tensor * context * data // expert
    recompute = draw(st.sampled_from(Recompute))
    virtual = 2 if schedule in (*FOLDED, Schedule.INTERLEAVED) else 1
    by_chunk = recompute is not Recompute.NONE and draw(st.booleans())
    chunks = pipeline * virtual
    counts = st.lists(st.integers(0, LAYERS // chunks), min_size=chunks, max_size=chunks).map(tuple)
    method = draw(st.sampled_from(ContextMethod))
    hybrid = method is ContextMethod.HYBRID
    return Layout(
        tensor_parallel=tensor,
        sequence_parallel=tensor > 1 and draw(st.booleans()),
        context_parallel=context,
        context_method=method,
        ulysses_parallel=draw(st.sampled_from([size for size in (1, 2, 4) if context % size == 0])) if hybrid else 1,
        pipeline_parallel=pipeline,
        virtual_pipeline=virtual,
        vocabulary_parallel=draw(st.booleans()),
        data_parallel=data,
        expert_parallel=expert,
        expert_tensor_parallel=draw(st.sampled_from([size for size in (1, 2) if rest % size == 0])),
        zero_stage=draw(st.sampled_from([0, 1, 2, 3])),
        **draw(shards(context * data)),
        recompute=recompute,
        recompute_layers=None if by_chunk else draw(st.sampled_from([None, 1, 3])),
        recompute_split=draw(counts) if by_chunk else (),
        schedule=schedule,
        micro_batch=draw(st.sampled_from([1, 2, 4, 8])),
    )


def without(table: LayoutTable, schedules: Sequence[int]) -> LayoutTable:
    """Put 1F1B in the place of some schedules."""
    return replace(table, schedule=np.where(np.isin(table.schedule, schedules), ONE_F_ONE_B, table.schedule))


tables = st.lists(layouts(), min_size=1, max_size=12).map(LayoutTable.of)
models, stacks = st.sampled_from(sorted(MODELS)), st.sampled_from([*sorted(STACKS), *entry_names("stacks")])


@pytest.fixture(scope="module")
def job_of(round_job: Callable[..., Job]) -> Callable[[str, str], Job]:
    """Give the maker of a job by the names of its model and of a stack: one of STACKS, or a shipped one."""

    def make(model: str, stack: str) -> Job:
        shape = MODELS[model] | {"layers": LAYERS}
        job = round_job(model=shape, stack=STACKS.get(stack), cluster=CLUSTER, global_batch=BATCH)
        return job if stack in STACKS else replace(job, stack=stack_named(stack))

    return make


def step_s(job: Job, table: LayoutTable) -> FloatArray:
    return predict_time(job, table).step_time_s


def on(job: Job, cluster: Cluster) -> Job:
    return replace(job, cluster=cluster)


def _tier(cluster: Cluster, level: int, **changes: float) -> Cluster:
    tiers = list(cluster.tiers)
    tiers[level] = replace(tiers[level], **changes)  # type: ignore[arg-type]
    return replace(cluster, tiers=tuple(tiers))


def _calibrated(cluster: Cluster, **changes: float) -> Cluster:
    calibration = cluster.device.calibration.model_copy(update=changes)
    return replace(cluster, device=replace(cluster.device, calibration=calibration))


def _peaked(cluster: Cluster, factor: float) -> Cluster:
    peaks = {precision: peak * factor for precision, peak in cluster.device.peak_flop_per_s.items()}
    return replace(cluster, device=replace(cluster.device, peak_flop_per_s=peaks))


def _bandwidth(cluster: Cluster, factor: float) -> Cluster:
    bandwidth = cluster.device.memory_bandwidth_bytes_per_s * factor
    return replace(cluster, device=replace(cluster.device, memory_bandwidth_bytes_per_s=bandwidth))


WORSE: Mapping[str, Callable[[Cluster, float], Cluster]] = {
    "memory bandwidth": _bandwidth,
    "peak": _peaked,
    "matmul ceiling": lambda cluster, factor: _calibrated(cluster, matmul_ceiling=0.5 * factor),
    "attention": lambda cluster, factor: _calibrated(
        cluster, attention_forward=0.5 * factor, attention_backward=0.25 * factor
    ),
    "kernel latency": lambda cluster, factor: _calibrated(cluster, kernel_latency=1e-5 / factor),
    "node bandwidth": lambda cluster, factor: _tier(cluster, 0, bandwidth_bytes_per_s=1e11 * factor),
    "fabric bandwidth": lambda cluster, factor: _tier(
        cluster, 1, bandwidth_bytes_per_s=cluster.tiers[1].bandwidth_bytes_per_s * factor
    ),
    "node latency": lambda cluster, factor: _tier(cluster, 0, latency_s=1e-6 / factor),
    "fabric latency": lambda cluster, factor: _tier(cluster, 1, latency_s=1e-5 / factor),
    "oversubscription": lambda cluster, factor: _tier(cluster, 1, oversubscription=1.0 / factor),
}


@pytest.mark.parametrize("part", WORSE)
@settings(lawful, max_examples=40)
@given(model=models, stack=stacks, table=tables, factor=st.floats(0.05, 1.0), fabric=st.sampled_from([1e8, 1e9, 1e10]))
def test_a_worse_machine_is_never_faster(
    job_of: Callable[[str, str], Job],
    part: str,
    model: str,
    stack: str,
    table: LayoutTable,
    factor: float,
    fabric: float,
) -> None:
    job = job_of(model, stack)
    # On a slow fabric messages need all of the compute that they can hide beside.
    job = on(job, _tier(job.cluster, 1, bandwidth_bytes_per_s=fabric))
    worse = on(job, WORSE[part](job.cluster, factor))
    assert np.all(step_s(worse, table) >= step_s(job, table) * (1 - 1e-9))


@lawful
@given(model=models, stack=stacks, table=tables)
def test_a_breakdown_has_no_negative_part_and_sums_to_a_finite_total(
    job_of: Callable[[str, str], Job], model: str, stack: str, table: LayoutTable
) -> None:
    job = job_of(model, stack)
    time, memory = predict_time(job, table), predict_memory(job, table)
    for whole, parts in ((time.step_time_s, time.breakdown), (memory.allocated_bytes, memory.breakdown)):
        stacked = np.stack([np.broadcast_to(part, len(table)) for part in parts.values()])
        assert np.all(np.isfinite(stacked))
        assert np.all(stacked >= 0.0)
        assert np.all(whole > 0.0)
        assert stacked.sum(axis=0) == pytest.approx(whole, rel=1e-12)
    assert np.all(memory.reserved_bytes >= memory.allocated_bytes)
    assert np.all(memory.nvidia_smi_bytes >= memory.reserved_bytes)


@lawful
@given(model=models, stack=stacks, table=tables)
def test_no_layout_beats_the_rate_that_devices_sustain(
    job_of: Callable[[str, str], Job], model: str, stack: str, table: LayoutTable
) -> None:
    job = job_of(model, stack)
    predicted = predict_time(job, table)
    world = np.array([table.row(index).world_size for index in range(len(table))])
    sustained = 0.5 * job.cluster.device.peak(Precision.BF16) * world
    assert np.all(predicted.step_time_s >= predicted.model_flop / sustained)


@lawful
@given(model=models, stack=stacks, table=tables)
def test_a_layout_is_predicted_alike_alone_and_in_company(
    job_of: Callable[[str, str], Job], model: str, stack: str, table: LayoutTable
) -> None:
    job = job_of(model, stack)
    rows = [table.take(np.array([index])) for index in range(len(table))]
    for predict in (predict_time, predict_memory):
        together = predict(job, table).breakdown
        for index, row in enumerate(rows):
            for cause, alone in predict(job, row).breakdown.items():
                expected = np.broadcast_to(together[cause], len(table))[index]
                assert np.broadcast_to(alone, 1)[0] == pytest.approx(expected, rel=1e-12)


@lawful
@given(model=models, stack=stacks, table=tables)
def test_a_machine_twice_as_fast_takes_half_as_long(
    job_of: Callable[[str, str], Job], model: str, stack: str, table: LayoutTable
) -> None:
    job = job_of(model, stack)
    latency = job.cluster.device.calibration.kernel_latency / 2
    fast = _calibrated(_peaked(_bandwidth(job.cluster, 2.0), 2.0), kernel_latency=latency)
    for level, tier in enumerate(job.cluster.tiers):
        fast = _tier(fast, level, bandwidth_bytes_per_s=2 * tier.bandwidth_bytes_per_s, latency_s=tier.latency_s / 2)
    host = ("layer_launch", "expert_launch", "collective_launch", "step_overhead")
    stack_entry = job.stack.model_copy(update={name: getattr(job.stack, name) / 2 for name in host})
    assert step_s(replace(job, cluster=fast, stack=stack_entry), table) == pytest.approx(
        step_s(job, table) / 2, rel=1e-9
    )


@lawful
@given(model=models, stack=stacks, table=tables)
def test_twice_the_batch_takes_longer_but_not_twice_as_long(
    job_of: Callable[[str, str], Job], model: str, stack: str, table: LayoutTable
) -> None:
    job = job_of(model, stack)
    # The bubble that V-Half and V-Min repeat with each micro-batch isn't there in fill and drain.
    table = without(table, V_SCHEDULES)
    once, twice = step_s(job, table), step_s(replace(job, global_batch=2 * BATCH), table)
    assert np.all(once < twice)
    assert np.all(twice <= 2 * once * (1 + 1e-9))


def with_column(table: LayoutTable, **columns: int) -> LayoutTable:
    size = len(table)
    return replace(table, **{name: np.full(size, value) for name, value in columns.items()})


@lawful
@given(model=models, stack=stacks, table=tables)
def test_larger_micro_batches_never_need_less_memory(
    job_of: Callable[[str, str], Job], model: str, stack: str, table: LayoutTable
) -> None:
    job = job_of(model, stack)
    # Half as many micro-batches of twice the size: schedules that hold all of them hold as many sequences as before.
    small, large = (predict_memory(job, replace(table, micro_batch=table.micro_batch * size)) for size in (1, 2))
    assert np.all(large.allocated_bytes >= small.allocated_bytes * (1 - 1e-12))
    assert np.all(large.reserved_bytes >= small.reserved_bytes * (1 - 1e-12))
    assert np.all(large.nvidia_smi_bytes >= small.nvidia_smi_bytes * (1 - 1e-12))


@lawful
@given(model=models, stack=stacks, table=tables)
def test_recomputation_never_keeps_more(
    job_of: Callable[[str, str], Job], model: str, stack: str, table: LayoutTable
) -> None:
    job = job_of(model, stack)
    none, selective, full = (with_column(table, recompute=code, recompute_layers=0, split=0) for code in range(3))
    for layer in job.model.layer_kinds:
        kept = [layer_activations(job, layer, one).kept for one in (none, selective, full)]
        assert np.all(kept[0] >= kept[1])
        assert np.all(kept[1] >= kept[2])
    allocated = [predict_memory(job, one).allocated_bytes for one in (none, selective, full)]
    assert np.all(allocated[0] >= allocated[1] * (1 - 1e-12))
    assert np.all(allocated[0] >= allocated[2] * (1 - 1e-12))
    taken = [step_s(job, one) for one in (none, selective, full)]
    assert np.all(taken[0] <= taken[1] * (1 + 1e-12))
    assert np.all(taken[1] <= taken[2] * (1 + 1e-12))


@lawful
@given(model=models, stack=stacks, table=tables)
def test_recomputing_more_layers_takes_longer_and_keeps_less(
    job_of: Callable[[str, str], Job], model: str, stack: str, table: LayoutTable
) -> None:
    job = job_of(model, stack)
    some, more, every = (with_column(table, recompute=FULL, recompute_layers=layers, split=0) for layers in (1, 3, 0))
    kept = [predict_memory(job, one).breakdown["activations"] for one in (some, more, every)]
    taken = [step_s(job, one) for one in (some, more, every)]
    # Of another stage, where that is the worst now, for the first; so memory is compared where there is one stage.
    single = table.pipeline_parallel == 1
    for less, greater in ((0, 1), (1, 2)):
        assert np.all(kept[less][single] >= kept[greater][single] * (1 - 1e-12))
        assert np.all(taken[less] <= taken[greater] * (1 + 1e-12))


@lawful
@given(model=models, stack=stacks, layout=layouts(), data=st.data())
def test_recomputing_more_layers_of_a_chunk_keeps_less(
    job_of: Callable[[str, str], Job], model: str, stack: str, layout: Layout, data: st.DataObject
) -> None:
    job = job_of(model, stack)
    recompute = layout.recompute if layout.recompute is not Recompute.NONE else Recompute.FULL
    chunks = layout.pipeline_parallel * layout.virtual_pipeline
    more = data.draw(st.lists(st.integers(0, LAYERS // chunks), min_size=chunks, max_size=chunks))
    some = [data.draw(st.integers(0, count)) for count in more]
    layout = replace(layout, recompute=recompute, recompute_layers=None)
    table = LayoutTable.of([replace(layout, recompute_split=tuple(counts)) for counts in (some, more)])
    allocated = predict_memory(job, table).allocated_bytes
    # Of several chunks a stage may hold less than one micro-batch each, on average, but makes a whole layer again.
    if layout.virtual_pipeline == 1 and layout.schedule is not Schedule.DUAL_PIPE:
        assert allocated[0] >= allocated[1] * (1 - 1e-12)
    work = [breakdown_of_stages(job, table.take(np.array([row]))) for row in (0, 1)]
    assert work[0] <= work[1] * (1 + 1e-12)


def breakdown_of_stages(job: Job, table: LayoutTable) -> float:
    """Give the seconds of the busiest stage and of waiting for the others."""
    found = predict_time(job, table).breakdown
    ends = ("gradient_communication", "parameter_communication", "optimizer", "step_overhead")
    return float(sum(seconds[0] for cause, seconds in found.items() if cause not in ends))


@lawful
@given(model=models, stack=stacks, table=tables)
def test_what_is_counted_lies_over_each_other(
    job_of: Callable[[str, str], Job], model: str, stack: str, table: LayoutTable
) -> None:
    job = job_of(model, stack)
    found, first = (predict_memory(job, table, reading=Reading(first_step=flag)) for flag in (False, True))
    last = predict_memory(job, table, reading=Reading(last_stage=True))
    assert all(np.all(part >= 0) for part in found.breakdown.values())
    assert found.allocated_bytes == pytest.approx(sum(found.breakdown.values()))
    assert np.all(found.reserved_bytes >= found.allocated_bytes)
    assert np.all(found.nvidia_smi_bytes >= found.reserved_bytes)
    assert np.all(first.allocated_bytes <= found.allocated_bytes * (1 + 1e-12))
    assert np.all(last.allocated_bytes <= found.allocated_bytes * (1 + 1e-12))
    assert np.all(last.reserved_bytes <= found.reserved_bytes * (1 + 1e-12))


@lawful
@given(model=models, stack=stacks, table=tables)
def test_a_higher_zero_stage_never_holds_more_state(
    job_of: Callable[[str, str], Job], model: str, stack: str, table: LayoutTable
) -> None:
    job = job_of(model, stack)
    table = replace(table, backward_shard=table.parameter_shard)
    stages = stage_table(job.model, table)
    parameters = stage_parameters(job, table, stages)
    by_stage = [state_bytes(job, with_column(table, zero_stage=stage), parameters) for stage in range(4)]
    for lower, higher in pairwise(by_stage):
        assert all(np.all(higher[part] <= lower[part] * (1 + 1e-12)) for part in lower)


@lawful
@given(model=models, stack=stacks, table=tables, part=st.sampled_from(["gradient_shard", "parameter_shard", "all"]))
def test_wider_shards_never_hold_more_state(
    job_of: Callable[[str, str], Job], model: str, stack: str, table: LayoutTable, part: str
) -> None:
    job = job_of(model, stack)
    names = ("zero_shard", "gradient_shard", "parameter_shard", "backward_shard")
    every = table.data_parallel * table.context_parallel
    wide = {"gradient_shard": table.zero_shard, "parameter_shard": table.zero_shard}
    changes = {part: wide[part]} if part in wide else dict.fromkeys(names, every)
    stages = stage_table(job.model, table)
    parameters = stage_parameters(job, table, stages)
    narrow, wider = (state_bytes(job, one, parameters) for one in (table, replace(table, **changes)))
    if part == "parameter_shard":
        # A copy for the backward pass may be had beside shards, not beside what is as narrow itself.
        copies = np.minimum(table.backward_shard, table.parameter_shard) < table.parameter_shard
        narrow = {name: np.where(copies[:, np.newaxis], np.inf, value) for name, value in narrow.items()}
        wider = state_bytes(job, replace(table, **changes, backward_shard=table.zero_shard), parameters)
    assert all(np.all(wider[name] <= narrow[name] * (1 + 1e-12)) for name in wider)


@lawful
@given(model=models, stack=stacks, table=tables)
def test_shards_over_fewer_ranks_never_send_more_each_micro_batch(
    job_of: Callable[[str, str], Job], model: str, stack: str, table: LayoutTable
) -> None:
    # What is held whole within a step is sent once a step at most.
    job = job_of(model, stack)
    stages = stage_table(job.model, table)
    parameters = stage_parameters(job, table, stages)
    layers = np.maximum(stages.layers.sum(axis=2), 1)
    one = np.ones_like(table.zero_shard)
    held = state_messages(job, replace(table, gradient_shard=one, parameter_shard=one), parameters, layers)
    assert not np.any(held.forward_gather_s + held.backward_gather_s + held.reduction_s)


@lawful
@given(table=tables)
def test_a_table_gives_its_layouts_back(table: LayoutTable) -> None:
    again = LayoutTable.of(table.row(index) for index in range(len(table)))
    assert all(np.array_equal(getattr(again, column.name), getattr(table, column.name)) for column in fields(table))
