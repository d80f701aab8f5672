"""What the reference launcher can't run, each with the field of the plan that asks for it."""

from collections.abc import Iterator

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.errors import InputError
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.ledger.model_obstacles import model_obstacles
from meshwright.planner.ledger.obstacle import Obstacle
from meshwright.planner.ledger.workload import FLOAT_BYTES, Workload

CONTEXT_METHODS = (ContextMethod.ALL_GATHER, ContextMethod.ULYSSES)
SINGLE_CHUNK = (Schedule.GPIPE, Schedule.ONE_F_ONE_B)
SPLIT_BACKWARD = (Schedule.ZERO_BUBBLE_H1, Schedule.ZERO_BUBBLE_V, Schedule.DUAL_PIPE_V)
SCHEDULES = (*SINGLE_CHUNK, Schedule.INTERLEAVED, *SPLIT_BACKWARD)


def require_expressible(workload: Workload, *, file: str) -> None:
    """Raise InputError with the first thing that the reference launcher can't run, if there is one."""
    for obstacle in obstacles(workload):
        raise InputError(
            f"the reference launcher can't run {obstacle.feature}",
            file=file,
            path=obstacle.field,
            hint=obstacle.hint,
        )


def obstacles(workload: Workload) -> Iterator[Obstacle]:
    """Give what the reference launcher can't run of a workload."""
    layout = workload.layout
    yield from _axes(layout)
    yield from _shards(layout)
    if layout.pipeline_parallel > 1:
        yield from _pipeline(workload)
    elif layout.virtual_pipeline > 1:
        yield Obstacle(field="layout.virtual_pipeline", feature="several chunks on a single stage")
    yield from _precision(workload)
    yield from model_obstacles(workload)


def _axes(layout: Layout) -> Iterator[Obstacle]:
    if layout.context_parallel > 1 and layout.context_method not in CONTEXT_METHODS:
        yield Obstacle(
            field="layout.context_method",
            feature=f"context parallelism by {layout.context_method}",
            hint="plan with --fix context_method=all-gather or ulysses",
        )
    if layout.expert_tensor_parallel > 1:
        yield Obstacle(
            field="layout.expert_tensor_parallel",
            feature="experts whose matrices are cut",
            hint="plan with --fix expert_tensor_parallel=1",
        )
    if layout.vocabulary_parallel:
        yield Obstacle(
            field="layout.vocabulary_parallel",
            feature="embedding and head that all stages share",
            hint="plan with --fix vocabulary_parallel=false",
        )


def _shards(layout: Layout) -> Iterator[Obstacle]:
    if layout.zero_stage == 0:
        return
    for field, first_stage in (("gradient_shard", 2), ("parameter_shard", 3)):
        if layout.zero_stage >= first_stage and layout.shards[field] not in (1, layout.zero_shard):
            yield Obstacle(
                field=f"layout.{field}",
                feature=f"shards over {layout.shards[field]} of the {layout.zero_shard} devices of zero_shard",
            )
    if layout.zero_stage == 3 and layout.shards["backward_shard"] != layout.shards["parameter_shard"]:
        yield Obstacle(field="layout.backward_shard", feature="parameters that are sharded less from pass to pass")


def _pipeline(workload: Workload) -> Iterator[Obstacle]:
    layout, schedule, stages = workload.layout, workload.layout.schedule, workload.layout.pipeline_parallel
    if schedule not in SCHEDULES:
        known = ", ".join(SCHEDULES)
        yield Obstacle(field="layout.schedule", feature=f"the schedule {schedule}", hint=f"it runs {known}")
    if schedule in SINGLE_CHUNK and layout.virtual_pipeline > 1:
        yield Obstacle(field="layout.virtual_pipeline", feature=f"several chunks a stage under {schedule}")
    if schedule in SPLIT_BACKWARD and layout.recompute is Recompute.FULL:
        yield Obstacle(
            field="layout.recompute",
            feature=f"whole layers that are recomputed under {schedule}: PyTorch does so for each part of a split "
            "backward pass",
            hint="plan with --forbid recompute=full, or another schedule",
        )
    needed = {Schedule.ONE_F_ONE_B: stages, Schedule.DUAL_PIPE_V: 2 * stages}.get(schedule, 1)
    if workload.micro_batches < needed:
        yield Obstacle(
            field="layout.micro_batch",
            feature=f"{workload.micro_batches} micro-batches on {stages} stages under {schedule}",
            hint=f"PyTorch's schedule needs {needed}",
        )
    rounds = max(1, workload.micro_batches // stages)
    if schedule in (Schedule.INTERLEAVED, Schedule.ZERO_BUBBLE_H1) and workload.micro_batches % rounds:
        yield Obstacle(
            field="layout.micro_batch",
            feature=f"{workload.micro_batches} micro-batches in {rounds} rounds under {schedule}",
        )


def _precision(workload: Workload) -> Iterator[Obstacle]:
    if workload.element_bytes == FLOAT_BYTES:
        return
    layout = workload.layout
    if layout.zero_stage == 0 or layout.zero_shard == 1 or workload.model.has_experts:
        yield Obstacle(
            field="inputs.job.precision",
            feature="16-bit formats without FSDP, which casts what it gathers, or with experts",
            hint="train in fp32 with --precision fp32",
        )
