"""A plan, as JSON and as tables."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.schedule import Schedule
from meshwright.cli.render.progress import unit_of
from meshwright.cli.render.tables import add_row, bars, plain_table
from meshwright.cli.render.text import printable
from meshwright.cli.render.units import (
    shown_bytes,
    shown_duration,
    shown_energy,
    shown_error,
    shown_seconds,
    shown_share,
    shown_span,
    shown_tokens,
)
from meshwright.planner import Plan
from meshwright.planner.layout.description import context_words, describe, narrower_shards, recomputed_part
from meshwright.planner.layout.objective import SLOWER_BY_AT_MOST, Objective
from meshwright.planner.plan_schema import OffloadSection, StageSection, TrainingSection, UnrestrictedSection

REASONS_SHOWN = 6
BETTER = {
    Objective.TIME: "that fits is faster",
    Objective.COST: "that fits is cheaper a token",
    Objective.ROBUST: "that fits has a lower upper end of its interval",
    Objective.ENERGY: "that fits takes less energy a token",
}


def plan_document(plan: Plan, *, seconds: float | None) -> dict[str, Any]:
    """Give the JSON form of a plan; `seconds` is how long its search took, null for one that was read from a file.

    peak_memory_bytes is what the device must hold (nvidia-smi), with the other kinds beside it.
    """
    document = plan.model_dump(mode="json")
    predicted, peak = document["predicted"], document["predicted"]["peak_memory_bytes"]
    return {
        "model": plan.inputs.model.entry.name,
        "cluster": plan.inputs.cluster.entry.name,
        "devices": plan.mesh.devices,
        "layout": document["layout"],
        "predicted": {
            "step_time_s": predicted["step_time_s"],
            "step_time_interval_s": predicted["step_time_interval_s"],
            "nvidia_smi_interval_bytes": predicted["nvidia_smi_interval_bytes"],
            "interval_level": predicted["interval_level"],
            "wider_because": predicted["wider_because"],
            "tokens_per_s": predicted["tokens_per_s"],
            "mfu": predicted["mfu"],
            "usd_per_million_tokens": predicted["usd_per_million_tokens"],
            "joules_per_token": predicted["joules_per_token"],
            "training": predicted["training"],
            "peak_memory_bytes": peak["nvidia_smi"],
            "peak_memory_by_kind_bytes": peak,
            "memory_limit_bytes": predicted["memory_limit_bytes"],
            "breakdown": predicted["time_breakdown_s"],
            "memory_breakdown": predicted["memory_breakdown_bytes"],
        },
        "search": document["search"] | {"seconds": seconds},
        "alternatives": document["alternatives"],
        "stages": document["stages"],
        "mesh": document["mesh"],
        **({} if plan.offload is None else {"offload": document["offload"]}),
        "digest": plan.inputs.digest,
    }


def warnings(plan: Plan) -> Iterator[str]:
    """Give what users of a plan should know before all else, a sentence each."""
    if plan.mesh.idle and plan.inputs.job.objective in (Objective.TIME, Objective.MEMORY):
        devices = plan.inputs.cluster.entry.devices
        yield (
            f"this layout uses {plan.mesh.devices:,} of {devices:,} devices and leaves {plan.mesh.idle:,} idle: "
            "none of the larger numbers that were tried is better"
        )


def render_plan(
    console: Console, plan: Plan, *, seconds: float | None, file: Path | None, searched: bool = True
) -> None:
    """Print a plan: what it comes to, layout, stages, groups, time, memory, the search and the runners-up.

    searched: the predictions are those that its search compared; else what the search proved isn't said.
    """
    for line in _summary(plan):
        console.print(Text(line))
    _render_layout(console, plan)
    _render_stages(console, plan)
    _render_groups(console, plan)
    predicted = plan.predicted
    bars(console, "Where the time goes", predicted.time_breakdown_s, shown=shown_seconds, total="step")
    bars(console, "Where the memory goes", predicted.memory_breakdown_bytes, shown=shown_bytes, total="allocated")
    if searched:
        _render_search(console, plan, seconds=seconds)
    _render_alternatives(console, plan)
    if file is not None:
        console.print(Text(f"written to {file}"))


def _offload_summary(plan: Plan, offload: OffloadSection) -> Iterator[str]:
    shares, memory, job = offload.optimizer, offload.memory_bytes, plan.inputs.job
    tokens_per_s = job.global_batch * job.sequence_length / offload.step_time_s
    yield (
        f"with offloading: {tokens_per_s:,.0f} tokens/s, step {shown_seconds(offload.step_time_s)}, device "
        f"{shown_bytes(memory.device)} of {shown_bytes(offload.budget_bytes)}, host {shown_bytes(memory.host)} a rank"
    )
    yield (
        f"decided for {offload.target}: optimizer {shown_share(shares.cpu)} on the host, "
        f"{shown_share(shares.streamed)} streamed, {shown_share(shares.resident)} resident"
    )
    yield "all that follows is without offloading, on devices of any memory:"


def _summary(plan: Plan) -> Iterator[str]:
    inputs, predicted = plan.inputs, plan.predicted
    device, cluster = inputs.device.entry.name, inputs.cluster.entry.name
    yield f"{inputs.model.entry.name} on {plan.mesh.devices:,} x {device} of {cluster}, {inputs.stack.entry.name}"
    yield (
        f"{inputs.job.global_batch:,} sequences of {inputs.job.sequence_length:,} tokens a step, {inputs.job.precision}"
    )
    if plan.offload is not None:
        yield from _offload_summary(plan, plan.offload)
    yield (
        f"{predicted.tokens_per_s:,.0f} tokens/s, MFU {shown_share(predicted.mfu)}, "
        f"step {shown_seconds(predicted.step_time_s)}, memory {shown_bytes(predicted.peak_memory_bytes.nvidia_smi)} "
        f"of {shown_bytes(predicted.memory_limit_bytes)}"
    )
    time, memory = predicted.step_time_interval_s, predicted.nvidia_smi_interval_bytes
    yield (
        f"{predicted.interval_level:.0%} sure: step {shown_span(time.low, time.high, shown=shown_seconds)}, "
        f"memory {shown_span(memory.low, memory.high, shown=shown_bytes)}"
    )
    for reason in predicted.wider_because:
        yield f"less sure, since {reason}"
    if inputs.job.limits:
        yield f"asked for: {printable(' '.join(inputs.job.limits.options()))}"
    for overlay in inputs.overlays:
        yield f"with calibrated figures: {printable(overlay.source)}"
    if predicted.usd_per_million_tokens is not None:
        yield f"{predicted.usd_per_million_tokens:.2f} USD per million tokens"
    if inputs.job.objective is Objective.ENERGY:
        yield f"{predicted.joules_per_token:.4g} J per token at most, which is if devices draw their power limit"
    if predicted.training is not None:
        yield _training(predicted.training)
    yield from warnings(plan)


def _render_layout(console: Console, plan: Plan) -> None:
    layout = plan.layout
    table = plain_table("Layout", ["", "", ""])
    table.show_header = False
    add_row(
        table,
        "tensor parallel",
        layout.tensor_parallel,
        "with sequence parallelism" if layout.sequence_parallel else "",
    )
    if layout.context_parallel > 1:
        add_row(table, "context parallel", layout.context_parallel, f"by {context_words(layout.layout())}")
    add_row(table, "pipeline parallel", layout.pipeline_parallel, _schedule(plan))
    outermost = layout.axis_order is AxisOrder.DATA_OUTERMOST
    add_row(table, "data parallel", layout.data_parallel, "outermost: stages are neighbours" if outermost else "")
    if plan.inputs.model.entry.experts is not None:
        cut = f"each cut in {layout.expert_tensor_parallel}" if layout.expert_tensor_parallel > 1 else ""
        add_row(table, "expert parallel", layout.expert_parallel, cut)
    shards = ", ".join([f"over {layout.zero_shard} devices", *narrower_shards(layout.layout())])
    add_row(table, "ZeRO stage", layout.zero_stage, shards if layout.zero_stage else "")
    add_row(table, "recompute", layout.recompute, recomputed_part(layout.layout()))
    add_row(table, "micro-batch", layout.micro_batch, _micro_batches(plan))
    console.print(table)


def _micro_batches(plan: Plan) -> str:
    if plan.replica_batches is None:
        each = plan.inputs.job.global_batch // (plan.layout.data_parallel * plan.layout.micro_batch)
        return f"{each} a replica and step"
    runs = (f"{batch.micro_batches} a step on {batch.replicas} replicas" for batch in plan.replica_batches)
    return ", ".join(runs)


def _schedule(plan: Plan) -> str:
    if plan.layout.pipeline_parallel == 1:
        return ""
    words = [str(plan.layout.schedule)]
    if plan.layout.schedule is Schedule.INTERLEAVED:
        words.append(f"{plan.layout.virtual_pipeline} chunks a stage")
    if plan.layout.vocabulary_parallel:
        words.append("embedding and head shared by all stages")
    return ", ".join(words)


def _render_stages(console: Console, plan: Plan) -> None:
    table = plain_table("Stages", ["stages", "layers", ""])
    for (layers, holds), run in groupby(plan.stages, key=lambda stage: (_layers_of(stage), _holds(stage))):
        numbers = [stage.stage for stage in run]
        each = " each" if len(numbers) > 1 else ""
        add_row(table, _range(numbers[0], numbers[-1]), f"{layers}{each}", holds)
    console.print(table)


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _layers_of(stage: StageSection) -> str:
    sizes = [len(chunk) for chunk in stage.layers()]
    total = f"{sum(sizes)} layer{'s' if sum(sizes) != 1 else ''}"
    if len(sizes) == 1:
        return total
    return f"{total} in chunks of {sizes[0] if len(set(sizes)) == 1 else '+'.join(map(str, sizes))}"


def _holds(stage: StageSection) -> str:
    return " and ".join(name for name, there in (("embedding", stage.embedding), ("head", stage.head)) if there)


def _render_groups(console: Console, plan: Plan) -> None:
    table = plain_table("Process groups", ["group"], ["ranks", "apart", "groups"])
    table.add_column("the first", overflow="fold")
    has_experts = plan.inputs.model.entry.experts is not None
    for name, axis in plan.mesh.groups.items():
        if axis.size > 1 and (has_experts or not name.startswith("expert")):
            shown = [str(rank * axis.stride) for rank in range(min(axis.size, 4))]
            more = [] if axis.size <= 4 else ["...", str((axis.size - 1) * axis.stride)]
            count = plan.mesh.devices // axis.size
            add_row(table, name.replace("_", " "), axis.size, axis.stride, count, ", ".join(shown + more))
    if table.row_count:
        console.print(table)


def _render_search(console: Console, plan: Plan, *, seconds: float | None) -> None:
    search = plan.search
    took = "" if seconds is None else f" in {shown_seconds(seconds)}"
    table = plain_table(f"Search: {search.candidates:,} candidates{took}", ["outcome"], ["candidates"])
    add_row(table, "feasible", f"{search.feasible:,}")
    ordered = sorted(search.rejected.items(), key=lambda item: (-item[1], item[0]))
    for reason, count in ordered[:REASONS_SHOWN]:
        add_row(table, f"rejected: {reason}", f"{count:,}")
    if len(ordered) > REASONS_SHOWN:
        add_row(table, "rejected for other reasons", f"{sum(count for _, count in ordered[REASONS_SHOWN:]):,}")
    console.print(table)
    console.print(Text(_proof(plan)))
    if search.unrestricted is not None:
        console.print(Text(_restriction(plan, search.unrestricted)))


def _training(training: TrainingSection) -> str:
    price = "" if training.usd is None else f"{training.usd:,.{0 if training.usd >= 100 else 2}f} USD, "
    return (
        f"{shown_tokens(training.tokens)} tokens in {training.steps:,} steps: {shown_duration(training.time_s)}, "
        f"{price}{shown_energy(training.energy_joules)} at most"
    )


def _proof(plan: Plan) -> str:
    job = plan.inputs.job
    if plan.offload is not None:
        return "Not proven: of the layouts that would be fastest on devices of any memory, or that were given."
    if plan.search.proof == "given":
        return "Given, not searched for: `meshwright plan` finds the best layout."
    if job.target_time_s is not None:
        what = "a step takes" if job.tokens is None else "the training takes"
        reached = f"{what} {shown_duration(job.target_time_s)} at most"
        return f"Proved: with fewer of the cluster's nodes, no layout that fits is so fast that {reached}."
    if job.objective is Objective.MEMORY:
        slower_by = SLOWER_BY_AT_MOST if job.slower_by is None else job.slower_by
        better = f"at most {shown_share(slower_by)} slower than the fastest needs less memory"
    else:
        better = BETTER[job.objective]
    if plan.search.proof == "optimal":
        return f"Proved optimal: no layout of this space {better}."
    bound = unit_of(job.objective)(plan.search.lower_bound)
    return (
        f"Best found when time ran out: no layout of this space comes to less than {bound}, "
        f"which the plan is {shown_share(plan.search.gap)} above."
    )


def _restriction(plan: Plan, free: UnrestrictedSection) -> str:
    what = f"Keeping to what {plan.inputs.job.target} runs costs"
    most = "" if free.lower_bound == free.value else " at least, and at most " + shown_share(_above(free))
    if free.costs <= 0:
        return f"{what} nothing{most}."
    return f"{what} {shown_share(free.costs)}{most}: with all that any software runs, {describe(free.layout.layout())}."


def _above(free: UnrestrictedSection) -> float:
    """Give by how much the plan comes to more than the least that may be without its target."""
    return (1.0 + free.costs) * free.value / free.lower_bound - 1.0


def _render_alternatives(console: Console, plan: Plan) -> None:
    table = plain_table("Runners-up, the best of other meshes", ["layout"], ["step", "against it", "memory"])
    for other in plan.alternatives:
        add_row(
            table,
            describe(other.layout.layout()),
            shown_seconds(other.step_time_s),
            shown_error(other.slower_by),
            shown_bytes(other.peak_memory_bytes),
        )
    if table.row_count:
        console.print(table)
