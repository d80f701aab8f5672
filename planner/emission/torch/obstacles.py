"""What the reference launcher can't run of a plan, or of another workload under the plan's layout."""

from collections.abc import Iterator

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.errors import InputError
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.emission.obstacle import Obstacle
from meshwright.planner.emission.rank_order import pipeline_outermost
from meshwright.planner.emission.torch.model_obstacles import model_obstacles
from meshwright.planner.ledger.plan_workload import plan_workload
from meshwright.planner.ledger.workload import FLOAT_BYTES, Workload
from meshwright.planner.plan_schema import Plan

CONTEXT_METHODS = (ContextMethod.ALL_GATHER, ContextMethod.ULYSSES)
SINGLE_CHUNK = (Schedule.GPIPE, Schedule.ONE_F_ONE_B)
SPLIT_BACKWARD = (Schedule.ZERO_BUBBLE_H1, Schedule.ZERO_BUBBLE_V, Schedule.DUAL_PIPE_V)
SCHEDULES = (*SINGLE_CHUNK, Schedule.INTERLEAVED, *SPLIT_BACKWARD)
PLAIN_PIPELINE = {"schedule": Schedule.ONE_F_ONE_B, "virtual_pipeline": 1, "split": (), "recompute_split": ()}
NO_RECOMPUTE = {"recompute": Recompute.NONE, "recompute_layers": None, "recompute_split": ()}


def obstacles(plan: Plan) -> Iterator[Obstacle]:
    """Give all that keeps the reference launcher from training a plan's own model."""
    yield from workload_obstacles(plan_workload(plan))


def require_expressible(workload: Workload, *, file: str) -> None:
    """Raise InputError with the first thing that the reference launcher can't run, if there is one."""
    for obstacle in workload_obstacles(workload):
        raise InputError(
            f"the reference launcher {obstacle.feature}",
            file=file,
            path=obstacle.path,
            hint="--model tiny trains a small model of its kind instead"
            if obstacle.path.startswith("inputs.model")
            else "plan with --fix or --forbid for another layout",
        )


def workload_obstacles(workload: Workload) -> Iterator[Obstacle]:
    """Give all that keeps the reference launcher from running a workload."""
    layout = workload.layout
    yield from _axes(layout)
    yield from pipeline_outermost(layout)
    if layout.zero_stage:
        yield from _shards(layout)
    if layout.pipeline_parallel > 1:
        yield from _schedule(layout)
        yield from _micro_batches(workload)
    elif layout.virtual_pipeline > 1:
        yield Obstacle(
            path="layout.virtual_pipeline", feature="has no chunks without stages", instead=(PLAIN_PIPELINE,)
        )
    yield from _precision(workload)
    yield from model_obstacles(workload)


def _axes(layout: Layout) -> Iterator[Obstacle]:
    if layout.context_parallel > 1 and layout.context_method not in CONTEXT_METHODS:
        yield Obstacle(
            path="layout.context_method",
            feature=f"has no {layout.context_method} method of context parallelism",
            instead=tuple({"context_method": method, "ulysses_parallel": 1} for method in CONTEXT_METHODS),
        )
    if layout.expert_tensor_parallel > 1:
        yield Obstacle(
            path="layout.expert_tensor_parallel",
            feature="doesn't cut the matrices of experts",
            instead=({"expert_tensor_parallel": 1},),
        )
    if layout.vocabulary_parallel:
        yield Obstacle(
            path="layout.vocabulary_parallel",
            feature="doesn't share embedding and head over the stages",
            instead=({"vocabulary_parallel": False},),
        )


def _shards(layout: Layout) -> Iterator[Obstacle]:
    for name, first_stage in (("gradient_shard", 2), ("parameter_shard", 3)):
        if layout.zero_stage >= first_stage and layout.shards[name] not in (1, layout.zero_shard):
            yield Obstacle(
                path=f"layout.{name}",
                feature=f"doesn't shard over {layout.shards[name]} of the {layout.zero_shard} devices of zero_shard",
                instead=({name: None}, {name: 1}),
            )
    if layout.zero_stage == 3 and layout.shards["backward_shard"] != layout.shards["parameter_shard"]:
        yield Obstacle(
            path="layout.backward_shard",
            feature="doesn't shard parameters less from their forward to their backward pass",
            instead=({"backward_shard": None},),
        )


def _schedule(layout: Layout) -> Iterator[Obstacle]:
    schedule = layout.schedule
    if schedule not in SCHEDULES:
        yield Obstacle(path="layout.schedule", feature=f"has no {schedule} schedule", instead=(PLAIN_PIPELINE,))
    if schedule in SINGLE_CHUNK and layout.virtual_pipeline > 1:
        yield Obstacle(
            path="layout.virtual_pipeline",
            feature=f"has no chunks under {schedule}",
            instead=({"schedule": Schedule.INTERLEAVED},),
        )
    if schedule in SPLIT_BACKWARD and layout.recompute is Recompute.FULL:
        yield Obstacle(
            path="layout.recompute",
            feature=f"recomputes no whole layers under {schedule}: PyTorch would, for each part of a split backward",
            instead=(NO_RECOMPUTE, NO_RECOMPUTE | {"recompute": Recompute.SELECTIVE}),
        )


def _micro_batches(workload: Workload) -> Iterator[Obstacle]:
    layout, count = workload.layout, workload.micro_batches
    schedule, stages = layout.schedule, layout.pipeline_parallel
    needed = {Schedule.ONE_F_ONE_B: stages, Schedule.DUAL_PIPE_V: 2 * stages}.get(schedule, 1)
    if count < needed:
        yield Obstacle(
            path="layout.micro_batch",
            feature=f"runs {needed} micro-batches or more under {schedule}, not {count}",
            instead=({"schedule": Schedule.GPIPE},) if schedule is Schedule.ONE_F_ONE_B else (PLAIN_PIPELINE,),
        )
    rounds = max(1, count // stages)
    if schedule in (Schedule.INTERLEAVED, Schedule.ZERO_BUBBLE_H1) and count % rounds:
        yield Obstacle(
            path="layout.micro_batch",
            feature=f"runs whole rounds under {schedule}, and {count} micro-batches aren't {rounds} of them",
            instead=(PLAIN_PIPELINE,),
        )


def _precision(workload: Workload) -> Iterator[Obstacle]:
    layout = workload.layout
    unsharded = layout.zero_stage == 0 or layout.zero_shard == 1 or workload.model.has_experts
    if workload.element_bytes != FLOAT_BYTES and unsharded:
        yield Obstacle(
            path="inputs.job.precision",
            feature="trains in 16 bits only what FSDP casts: sharded parameters, and none of experts",
        )
