"""What Megatron-LM core 0.12 can't run of a plan, with MindSpeed on Ascend devices and without it on others."""

from collections.abc import Callable, Iterator

from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.emission.launch.told import micro_batches
from meshwright.planner.emission.megatron.layout_arguments import MODULES
from meshwright.planner.emission.megatron.model_arguments import model_obstacles
from meshwright.planner.emission.megatron.obstacles import (
    context,
    interleaving,
    recomputed_split,
    sharding,
    tensor,
    unnamed_module,
    vocabulary,
)
from meshwright.planner.emission.megatron_0_12.devices import has_mindspeed
from meshwright.planner.emission.megatron_0_12.stages import can_cut, cuts_by_ends
from meshwright.planner.emission.obstacle import Obstacle
from meshwright.planner.plan_schema import Plan

PLAIN = {"schedule": Schedule.ONE_F_ONE_B, "virtual_pipeline": 1, "split": (), "recompute_split": ()}
# Later versions recompute these by name too.
LATER_MODULES = (RecomputedModule.SHARED_EXPERTS,)


def obstacles(plan: Plan) -> Iterator[Obstacle]:
    """Give all that keeps Megatron-LM core 0.12 from running a plan."""
    yield from model_obstacles(plan.inputs.model.entry)
    yield from _model(plan.inputs.model.entry)
    for check in CHECKS:
        yield from check(plan, plan.layout.layout())


def _model(entry: ModelEntry) -> Iterator[Obstacle]:
    path = "inputs.model.entry"
    if entry.window is not None:
        yield Obstacle(path=f"{path}.window", feature="has no attention within a window")
    if entry.experts is not None and entry.experts.shared_expert_gate:
        yield Obstacle(path=f"{path}.experts.shared_expert_gate", feature="has no gate of shared experts")


def _schedule(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    if layout.pipeline_parallel == 1:
        return
    known = (Schedule.ONE_F_ONE_B, Schedule.INTERLEAVED)
    path = "layout.schedule"
    if layout.schedule is Schedule.DUAL_PIPE_V and has_mindspeed(plan):
        yield from (Obstacle(path=path, feature=lack, instead=(PLAIN,)) for lack in _dual_pipe_v_lacks(plan, layout))
    elif layout.schedule not in known:
        yield Obstacle(path=path, feature=f"has no {layout.schedule} schedule", instead=(PLAIN,))


def _dual_pipe_v_lacks(plan: Plan, layout: Layout) -> Iterator[str]:
    """Give what MindSpeed's dualpipev_feature.py refuses, at most one thing."""
    entry, stages = plan.inputs.model.entry, layout.pipeline_parallel
    if layout.context_parallel > 1:
        yield "has no context parallelism under dualpipev"
    elif layout.zero_stage > 1:
        yield "shards optimizer states only under dualpipev"
    elif entry.tied_embeddings:
        yield "has no tied embeddings under dualpipev"
    elif entry.layers % (2 * stages):
        yield f"cuts layers into 2 x {stages} equal chunks under dualpipev"
    elif micro_batches(plan) < 2 * stages - 1:
        yield f"needs {2 * stages - 1} micro-batches under dualpipev, not {micro_batches(plan)}"


def _stages(plan: Plan, _: Layout) -> Iterator[Obstacle]:
    if not can_cut(plan):
        kinds = "lists of layers a stage" if has_mindspeed(plan) else "its own first and last stage"
        yield Obstacle(
            path="layout.split",
            feature=f"has only {kinds} where stages aren't equal",
            instead=(*cuts_by_ends(plan), {"split": ()}, PLAIN),
        )


def _replicas_of_shards(_: Plan, layout: Layout) -> Iterator[Obstacle]:
    """Hold copies of shards against its FSDP, which knows of one group only (megatron/core/distributed/custom_fsdp)."""
    ranks = layout.data_parallel * layout.context_parallel
    if layout.zero_stage > 1 and layout.zero_shard != ranks:
        whole = {"zero_shard": ranks, "gradient_shard": None, "parameter_shard": None, "backward_shard": None}
        feature = f"shards gradients and parameters over all {ranks} ranks that hold the same"
        yield Obstacle(path="layout.zero_shard", feature=feature, instead=(whole,))


def _recompute(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    if layout.recompute is Recompute.SELECTIVE:
        known = set(MODULES) - set(LATER_MODULES)
        yield from (
            unnamed_module(module) for module in plan.inputs.stack.entry.selective_recompute if module not in known
        )
    yield from recomputed_split(layout)


def _precision(plan: Plan, _: Layout) -> Iterator[Obstacle]:
    if plan.inputs.job.precision is Precision.NVFP4:
        yield Obstacle(path="inputs.job.precision", feature="has no nvfp4")


CHECKS: tuple[Callable[[Plan, Layout], Iterator[Obstacle]], ...] = (
    _schedule,
    interleaving,
    vocabulary,
    _stages,
    context,
    tensor,
    sharding,
    _replicas_of_shards,
    _recompute,
    _precision,
)
