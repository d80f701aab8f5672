"""What must hold between the sections of a plan; a file that breaks it was edited by hand."""

import math
from collections.abc import Iterator
from dataclasses import replace

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.errors import InputError
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import WIDER_SHARDS, Layout, Recompute
from meshwright.costmodels.stages import chunks_of_stage, ends_of_stage, stage_chunks
from meshwright.planner.layout.objective import Objective
from meshwright.planner.plan_schema import AxisSection, Inputs, Plan, PredictedSection
from meshwright.planner.ranks import EXPERT_ORDERS, MESH_ORDERS, fits_data_outermost, mesh_axes
from meshwright.planner.targets import limits_under

# Each figure is rounded to nine digits, so a sum of some tens of them is off by less than this.
ROUNDING = 1e-6


def require_consistent(plan: Plan, *, file: str) -> None:
    """Raise InputError with the first contradiction between the sections of a plan, if there is one."""
    for path, contradiction in contradictions(plan):
        raise InputError(contradiction, file=file, path=path, hint="make the plan again with `meshwright plan`")


def contradictions(plan: Plan) -> Iterator[tuple[str, str]]:
    """Give each contradiction: the path of the field, and a sentence about it."""
    yield from _layout(plan)
    yield from _mesh(plan)
    yield from _stages(plan)
    yield from _predicted(plan.predicted)
    yield from _memory(plan)
    yield from _training(plan)
    yield from _search(plan)
    yield from _alternatives(plan)


def _layout(plan: Plan) -> Iterator[tuple[str, str]]:
    layout = plan.layout.layout()
    if layout.world_size != plan.mesh.devices:
        yield "layout", f"the degrees multiply to {layout.world_size}, not to the mesh's {plan.mesh.devices} devices"
    if plan.mesh.devices + plan.mesh.idle != plan.inputs.cluster.entry.devices:
        yield "mesh.idle", f"isn't what {plan.mesh.devices} leave of {plan.inputs.cluster.entry.devices} devices"
    yield from layout_contradictions("layout", layout, plan.inputs, even=plan.replica_batches is None)
    yield from _batches(plan)


def _batches(plan: Plan) -> Iterator[tuple[str, str]]:
    layout, job = plan.layout, plan.inputs.job
    if plan.replica_batches is None:
        return
    replicas = sum(batch.replicas for batch in plan.replica_batches)
    sequences = layout.micro_batch * sum(batch.replicas * batch.micro_batches for batch in plan.replica_batches)
    if (replicas, sequences) != (layout.data_parallel, job.global_batch):
        yield (
            "replica_batches",
            f"are {sequences} sequences on {replicas} replicas, not {job.global_batch} on {layout.data_parallel}",
        )


def layout_contradictions(path: str, layout: Layout, inputs: Inputs, *, even: bool = True) -> Iterator[tuple[str, str]]:
    """Give each contradiction between a layout and inputs: the path of the field, and a sentence about it.

    even: all replicas run the same number of micro-batches.
    """
    devices, layers = inputs.cluster.entry.devices, inputs.model.entry.layers
    stage = layout.tensor_parallel * layout.context_parallel * layout.data_parallel
    if layout.world_size > devices:
        yield path, f"needs {layout.world_size} devices; the cluster has {devices}"
    if stage % (layout.expert_parallel * layout.expert_tensor_parallel):
        yield f"{path}.expert_parallel", f"the expert degrees don't divide the {stage} devices of a stage"
    if even and inputs.job.global_batch % (layout.data_parallel * layout.micro_batch):
        yield f"{path}.micro_batch", "the replicas' micro-batches don't make up the global batch"
    yield from _shards(path, layout)
    has_experts = inputs.model.entry.experts is not None
    if layout.axis_order is AxisOrder.DATA_OUTERMOST and not fits_data_outermost(layout, has_experts=has_experts):
        yield f"{path}.axis_order", "takes no context parallelism, and experts with as many replicas as the rest"
    if layout.recompute_layers is not None and (layout.recompute is Recompute.NONE or layout.recompute_split):
        yield f"{path}.recompute_layers", "is of layouts that recompute the same number of layers of each chunk"
    if layout.pipeline_parallel * layout.virtual_pipeline > layers:
        yield f"{path}.pipeline_parallel", f"{layers} layers don't fill each chunk of each stage"
        return
    for option in limits_under(inputs.job.target, inputs.job.limits).broken_by(layout, layers=layers):
        yield path, f"isn't within what {option} asks for"
    try:
        stage_chunks(layers, replace(layout, recompute_split=()))
    except ValueError as error:
        yield f"{path}.{'split' if layout.split else 'schedule'}", str(error)
        return
    try:
        stage_chunks(layers, layout, mtp_layers=inputs.model.entry.mtp_layers)
    except ValueError as error:
        yield f"{path}.recompute_split", str(error)


def _shards(path: str, layout: Layout) -> Iterator[tuple[str, str]]:
    sizes = {"zero_shard": layout.zero_shard, **layout.shards}
    replicas = layout.data_parallel * layout.context_parallel
    for name, size in sizes.items():
        whole = sizes.get(WIDER_SHARDS.get(name, ""), replicas)
        if whole % size:
            yield f"{path}.{name}", f"{size} devices don't divide the {whole} that they are taken from"


def _mesh(plan: Plan) -> Iterator[tuple[str, str]]:
    expected = {name: AxisSection.of(axis) for name, axis in mesh_axes(plan.layout.layout()).items()}
    order = plan.layout.axis_order
    if (plan.mesh.order, plan.mesh.expert_order) != (MESH_ORDERS[order], EXPERT_ORDERS[order]):
        axes, expert_axes = (", ".join(orders[order]) for orders in (MESH_ORDERS, EXPERT_ORDERS))
        yield "mesh.order", f"ranks of {order} are numbered by {axes}; those of experts by {expert_axes}"
    if plan.mesh.groups != expected:
        yield "mesh.groups", "aren't those that the layout implies"


def _stages(plan: Plan) -> Iterator[tuple[str, str]]:
    layout = plan.layout.layout()
    if len(plan.stages) != layout.pipeline_parallel:
        yield "stages", f"are {len(plan.stages)}; the layout has {layout.pipeline_parallel}"
    held: list[int] = []
    for number, stage in enumerate(plan.stages):
        path = f"stages.{number}"
        if stage.stage != number:
            yield f"{path}.stage", f"is {stage.stage}; the stages must be in order from 0"
        own = chunks_of_stage(layout, number)
        if len(stage.chunks) != len(own):
            yield f"{path}.chunks", f"are {len(stage.chunks)}; the layout has {len(own)} a stage"
        elif layout.split and tuple(map(len, stage.layers())) != tuple(layout.split[chunk] for chunk in own):
            yield f"{path}.chunks", "aren't of the sizes that the layout's split says"
        if (stage.embedding, stage.head) != ends_of_stage(layout, number):
            yield path, "the embedding goes with the model's first chunk and the head with the last"
        held += [layer for chunk in stage.layers() for layer in chunk]
    layers, copies = plan.inputs.model.entry.layers, 2 if layout.schedule is Schedule.DUAL_PIPE else 1
    if sorted(held) != [layer for layer in range(layers) for _ in range(copies)]:
        yield "stages", f"don't hold each of the model's {layers} layers {'twice' if copies > 1 else 'once'}"


def _predicted(predicted: PredictedSection) -> Iterator[tuple[str, str]]:
    time_s, peak = sum(predicted.time_breakdown_s.values()), predicted.peak_memory_bytes
    if not math.isclose(time_s, predicted.step_time_s, rel_tol=ROUNDING):
        yield "predicted.step_time_s", f"is {predicted.step_time_s} s; its breakdown sums to {time_s:.9g} s"
    for name, value, interval in (
        ("step_time_interval_s", predicted.step_time_s, predicted.step_time_interval_s),
        ("nvidia_smi_interval_bytes", peak.nvidia_smi, predicted.nvidia_smi_interval_bytes),
    ):
        if not interval.low <= value <= interval.high:
            yield f"predicted.{name}", f"from {interval.low} to {interval.high} doesn't hold the predicted {value}"
    memory = sum(predicted.memory_breakdown_bytes.values())
    if not math.isclose(memory, peak.allocated, rel_tol=ROUNDING):
        yield "predicted.peak_memory_bytes.allocated", f"is {peak.allocated}; its breakdown sums to {memory}"


def _memory(plan: Plan) -> Iterator[tuple[str, str]]:
    """Hold memory against its limit; where something leaves the device, what is left there against its budget."""
    peak, limit = plan.predicted.peak_memory_bytes, plan.predicted.memory_limit_bytes
    if not peak.allocated <= peak.reserved <= peak.nvidia_smi or (plan.offload is None and peak.nvidia_smi > limit):
        yield "predicted.peak_memory_bytes", "must rise from allocated to reserved, nvidia_smi and the memory limit"
    if plan.offload is None:
        return
    shares, memory = plan.offload.optimizer, plan.offload.memory_bytes
    if not math.isclose(shares.cpu + shares.streamed + shares.resident, 1.0, rel_tol=ROUNDING):
        yield "offload.optimizer", "has shares that don't sum to 1"
    if memory.device > plan.offload.budget_bytes * (1 + ROUNDING):
        yield "offload.memory_bytes.device", f"is {memory.device}, more than budget_bytes"
    if not math.isclose(sum(plan.offload.breakdown_s.values()), plan.offload.step_time_s, rel_tol=ROUNDING):
        yield "offload.step_time_s", "isn't what its breakdown sums to"


def _training(plan: Plan) -> Iterator[tuple[str, str]]:
    job, training = plan.inputs.job, plan.predicted.training
    if (training and training.tokens) != job.tokens:
        yield "predicted.training", f"isn't of the {job.tokens} tokens that were asked for"
    if training is not None:
        time_s = job.steps * plan.predicted.step_time_s
        if training.steps != job.steps or not math.isclose(training.time_s, time_s, rel_tol=ROUNDING):
            yield "predicted.training", f"isn't {job.steps} steps of {plan.predicted.step_time_s} s"
    target_s = job.target_time_s
    if target_s is not None and job.steps * plan.predicted.step_time_s > target_s * (1 + ROUNDING):
        yield "predicted.step_time_s", f"misses the target of {target_s} s for {job.steps} steps"


def _search(plan: Plan) -> Iterator[tuple[str, str]]:
    search = plan.search
    rejected = sum(search.rejected.values())
    if search.candidates != search.feasible + rejected:
        yield (
            "search.candidates",
            f"are {search.candidates}, but {search.feasible} feasible and {rejected} rejected ones are listed",
        )
    gap = _value(plan) / search.lower_bound - 1
    if not math.isclose(gap, search.gap, abs_tol=ROUNDING):
        yield "search.gap", f"is {search.gap}; the plan is {gap:.9g} above the lower bound"
    free = search.unrestricted
    if (free is None) != (plan.inputs.job.target is None):
        yield "search.unrestricted", "goes with a target, and a target with it"
    if free is not None and not math.isclose(_value(plan) / free.value - 1, free.costs, abs_tol=ROUNDING):
        yield "search.unrestricted.costs", f"is {free.costs}; the plan is {_value(plan) / free.value - 1:.9g} above it"
    if free is not None and free.lower_bound > free.value:
        yield "search.unrestricted.lower_bound", f"is {free.lower_bound}, above the value of {free.value}"
    if (search.proof != "bounded") != (search.gap == 0):
        yield "search.proof", f"is {search.proof}, but the gap is {search.gap}"


def _value(plan: Plan) -> float:
    """Give what the plan comes to under its objective."""
    predicted = plan.predicted
    return {
        Objective.TIME: predicted.step_time_s,
        Objective.COST: predicted.step_time_s * plan.mesh.devices,
        Objective.ENERGY: predicted.step_time_s * plan.mesh.devices,
        Objective.DEVICES: float(plan.mesh.devices),
        Objective.ROBUST: predicted.step_time_interval_s.high,
        Objective.MEMORY: float(predicted.peak_memory_bytes.nvidia_smi),
    }[plan.inputs.job.objective]


def _alternatives(plan: Plan) -> Iterator[tuple[str, str]]:
    step_time_s, limit = plan.predicted.step_time_s, plan.predicted.memory_limit_bytes
    if len(plan.alternatives) > plan.inputs.job.top:
        yield "alternatives", f"are {len(plan.alternatives)}; {plan.inputs.job.top} were asked for"
    for number, other in enumerate(plan.alternatives):
        path = f"alternatives.{number}"
        slower_by = other.step_time_s / step_time_s - 1
        yield from layout_contradictions(f"{path}.layout", other.layout.layout(), plan.inputs)
        if not math.isclose(slower_by, other.slower_by, rel_tol=ROUNDING, abs_tol=ROUNDING):
            yield f"{path}.slower_by", f"is {other.slower_by}; its step time makes it {slower_by:.9g}"
        if plan.inputs.job.objective in (Objective.TIME, Objective.DEVICES) and slower_by < -ROUNDING:
            yield f"{path}.step_time_s", "is less than the plan's, which is to be the fastest"
        if other.peak_memory_bytes > limit:
            yield f"{path}.peak_memory_bytes", f"is {other.peak_memory_bytes}; the memory limit is {limit}"
