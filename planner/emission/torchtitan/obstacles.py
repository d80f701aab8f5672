"""What torchtitan can't run of a plan."""

from collections.abc import Callable, Iterator

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.emission.linear_attention import without_linear_attention
from meshwright.planner.emission.obstacle import Obstacle
from meshwright.planner.emission.rank_order import pipeline_outermost
from meshwright.planner.emission.torchtitan.flavors import flavor_of
from meshwright.planner.emission.torchtitan.settings import NARROW, SCHEDULES
from meshwright.planner.plan_schema import Plan

UNSHARDED = {"gradient_shard": None, "parameter_shard": None, "backward_shard": None}


def obstacles(plan: Plan) -> Iterator[Obstacle]:
    """Give all that keeps torchtitan from running a plan."""
    for check in CHECKS:
        yield from check(plan, plan.layout.layout())


def _model(plan: Plan, _: Layout) -> Iterator[Obstacle]:
    entry, path = plan.inputs.model.entry, "inputs.model.entry"
    yield from without_linear_attention(entry)
    if flavor_of(entry) is None:
        yield Obstacle(path=f"{path}.name", feature=f"has no model of the dimensions of {entry.name}")
    if entry.mtp_layers:
        yield Obstacle(path=f"{path}.mtp_layers", feature="has no flavour of the model that predicts several tokens")


def _precision(plan: Plan, _: Layout) -> Iterator[Obstacle]:
    precision, vendor = plan.inputs.job.precision, plan.inputs.device.entry.vendor
    path = "inputs.job.precision"
    if precision not in NARROW:
        yield Obstacle(path=path, feature=f"isn't told to train in {precision} by this version")
    elif precision is Precision.MXFP8 and vendor != "nvidia":
        yield Obstacle(path=path, feature=f"has no {precision} on devices of {vendor}")


def _schedule(_: Plan, layout: Layout) -> Iterator[Obstacle]:
    if layout.pipeline_parallel > 1 and layout.schedule not in SCHEDULES:
        plain = {"schedule": Schedule.ONE_F_ONE_B, "virtual_pipeline": 1, "split": (), "recompute_split": ()}
        yield Obstacle(path="layout.schedule", feature=f"has no {layout.schedule} schedule", instead=(plain,))
    if layout.vocabulary_parallel and layout.pipeline_parallel > 1:
        yield Obstacle(
            path="layout.vocabulary_parallel",
            feature="doesn't share embedding and head over the stages",
            instead=({"vocabulary_parallel": False},),
        )


def _order(_: Plan, layout: Layout) -> Iterator[Obstacle]:
    return pipeline_outermost(layout)


def _context(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    ranks, length = layout.context_parallel, plan.inputs.job.sequence_length
    if ranks > 1 and layout.context_method is not ContextMethod.ALL_GATHER:
        yield Obstacle(
            path="layout.context_method",
            feature=f"gathers keys and values with its flexible attention, and has no {layout.context_method}",
            instead=({"context_method": ContextMethod.ALL_GATHER, "ulysses_parallel": 1},),
        )
    if ranks > 1 and length % (2 * ranks):
        yield Obstacle(
            path="layout.context_parallel",
            feature=f"cuts sequences into 2 x {ranks} pieces, and {length} tokens aren't whole pieces",
        )


def _sharding(_: Plan, layout: Layout) -> Iterator[Obstacle]:
    ranks = layout.data_parallel * layout.context_parallel
    if layout.zero_stage == 1:
        fewer = {"zero_stage": 2, **UNSHARDED}
        yield Obstacle(
            path="layout.zero_stage",
            feature="shards optimizer states with gradients or not at all",
            instead=(fewer, {**fewer, "zero_stage": 3}),
        )
    if layout.zero_stage == 0 and ranks > 1 and layout.context_parallel > 1:
        whole = {"zero_shard": layout.context_parallel, **UNSHARDED}
        yield Obstacle(
            path="layout.zero_stage",
            feature="always shards over the context ranks",
            instead=({**whole, "zero_stage": 2}, {**whole, "zero_stage": 3}),
        )
    if layout.zero_stage and layout.zero_shard % layout.context_parallel:
        yield Obstacle(
            path="layout.zero_shard",
            feature="shards over whole groups of context ranks",
            instead=({"zero_shard": ranks, **UNSHARDED},),
        )
    if any(size != layout.zero_shard for size in layout.shards.values()):
        yield Obstacle(
            path="layout.parameter_shard",
            feature="shards parameters, gradients and optimizer states over the same ranks",
            instead=(UNSHARDED,),
        )


def _experts(_: Plan, layout: Layout) -> Iterator[Obstacle]:
    borrowed = (layout.zero_shard if layout.zero_stage else layout.context_parallel) * layout.tensor_parallel
    if layout.expert_tensor_parallel > 1:
        yield Obstacle(
            path="layout.expert_tensor_parallel",
            feature="has no tensor parallelism of experts of its own",
            instead=(
                {"expert_tensor_parallel": 1},
                {
                    "expert_tensor_parallel": 1,
                    "expert_parallel": layout.expert_parallel * layout.expert_tensor_parallel,
                },
            ),
        )
    if borrowed % layout.expert_parallel:
        yield Obstacle(
            path="layout.expert_parallel",
            feature="takes expert ranks from those that FSDP shards over and from tensor ranks, not from replicas",
            instead=({"zero_shard": layout.data_parallel * layout.context_parallel, **UNSHARDED},),
        )


def _recompute(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    modules = plan.inputs.stack.entry.selective_recompute
    if layout.recompute is Recompute.SELECTIVE and modules != (RecomputedModule.EVERY_OTHER_PRODUCT,):
        yield Obstacle(
            path="layout.recompute",
            feature="recomputes every other product, not " + ", ".join(modules),
            instead=(
                {"recompute": Recompute.FULL},
                {"recompute": Recompute.NONE, "recompute_split": (), "recompute_layers": None},
            ),
        )


CHECKS: tuple[Callable[[Plan, Layout], Iterator[Obstacle]], ...] = (
    _model,
    _precision,
    _schedule,
    _order,
    _context,
    _sharding,
    _experts,
    _recompute,
)
