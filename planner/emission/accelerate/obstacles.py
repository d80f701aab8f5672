"""What Accelerate's configuration has no words for: it shards, replicates, and cuts matrices and sequences."""

from collections.abc import Iterator

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.precision import Precision
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.emission.axes_first import Check, axes_first
from meshwright.planner.emission.linear_attention import without_linear_attention
from meshwright.planner.emission.obstacle import Obstacle
from meshwright.planner.emission.replicas import WHOLE_SHARDS, without_axis
from meshwright.planner.plan_schema import Plan

METHODS = {ContextMethod.ALL_GATHER: "allgather", ContextMethod.RING: "alltoall"}
PRECISIONS = {Precision.FP32: "no", Precision.BF16: "bf16", Precision.FP16: "fp16", Precision.FP8: "fp8"}


def obstacles(plan: Plan) -> Iterator[Obstacle]:
    """Give what keeps Accelerate from running a plan: first what its axes do, then what hangs on those."""
    yield from without_linear_attention(plan.inputs.model.entry)
    yield from axes_first(plan, axes=_axes, checks=CHECKS)


def _axes(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    length = plan.inputs.job.sequence_length
    if layout.pipeline_parallel > 1:
        yield without_axis(plan, "pipeline_parallel", "has no pipelines")
    if length % (2 * layout.context_parallel) and layout.context_parallel > 1:
        feature = f"cuts sequences into 2 x {layout.context_parallel} pieces, and {length} tokens aren't whole pieces"
        yield without_axis(plan, "context_parallel", feature)
    if layout.tensor_parallel > 1 and layout.data_parallel * layout.context_parallel == 1:
        yield without_axis(plan, "tensor_parallel", "has no tensor parallelism without ranks to shard over")


def _methods(_: Plan, layout: Layout) -> Iterator[Obstacle]:
    if layout.context_parallel > 1 and layout.context_method not in METHODS:
        yield Obstacle(
            path="layout.context_method",
            feature=f"has no {layout.context_method} method of context parallelism for FSDP2",
            instead=tuple({"context_method": method, "ulysses_parallel": 1} for method in METHODS),
        )
    if layout.sequence_parallel and layout.tensor_parallel > 1:
        yield Obstacle(
            path="layout.sequence_parallel",
            feature="leaves it to the model's own plan whether tensor ranks share tokens",
            instead=({"sequence_parallel": False},),
        )


def _experts(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    if plan.inputs.model.entry.experts is None:
        return
    whole: dict[str, object] = {"expert_parallel": 1, "expert_tensor_parallel": layout.tensor_parallel}
    if layout.expert_parallel > 1:
        yield Obstacle(path="layout.expert_parallel", feature="doesn't spread experts", instead=(whole,))
    elif layout.expert_tensor_parallel != layout.tensor_parallel:
        yield Obstacle(
            path="layout.expert_tensor_parallel", feature="cuts experts as the other matrices", instead=(whole,)
        )


def _sharding(_: Plan, layout: Layout) -> Iterator[Obstacle]:
    """Hold stages of ZeRO against FSDP2, which shards optimizer states and gradients always, and over pairs at least.

    Plain replicas are DistributedDataParallel's, which knows of no other axis.
    """
    ranks = layout.data_parallel * layout.context_parallel
    sharded = tuple({"zero_stage": stage, "zero_shard": ranks, **WHOLE_SHARDS} for stage in (2, 3))
    alone = layout.tensor_parallel * layout.context_parallel == 1
    if layout.zero_stage == 1 and ranks > 1:
        yield Obstacle(path="layout.zero_stage", feature="shards gradients with the optimizer states", instead=sharded)
    elif layout.zero_stage == 0 and not alone:
        yield Obstacle(path="layout.zero_stage", feature="has no other axis beside plain replicas", instead=sharded)
    elif layout.zero_stage > 1 and ranks > 1:
        yield from _groups(layout, ranks)


def _groups(layout: Layout, ranks: int) -> Iterator[Obstacle]:
    whole: dict[str, object] = {"zero_shard": ranks, **WHOLE_SHARDS}
    if layout.zero_shard % layout.context_parallel or layout.zero_shard == 1:
        yield Obstacle(path="layout.zero_shard", feature="shards over whole groups of context ranks", instead=(whole,))
    elif layout.zero_shard == layout.context_parallel and layout.data_parallel > 1:
        yield Obstacle(
            path="layout.zero_shard", feature="replicates no shards of context ranks alone", instead=(whole,)
        )
    elif any(size != layout.zero_shard for size in layout.shards.values()):
        yield Obstacle(
            path="layout.parameter_shard",
            feature="shards parameters, gradients and optimizer states over the same ranks",
            instead=(dict(WHOLE_SHARDS),),
        )


def _recompute(_: Plan, layout: Layout) -> Iterator[Obstacle]:
    every = {"recompute_layers": None, "recompute_split": ()}
    choices = (every | {"recompute": Recompute.FULL}, every | {"recompute": Recompute.NONE})
    partial = layout.recompute_layers is not None or bool(layout.recompute_split)
    if layout.recompute is Recompute.SELECTIVE or (layout.recompute is Recompute.FULL and partial):
        yield Obstacle(path="layout.recompute", feature="recomputes all layers as a whole, or none", instead=choices)


def _precision(plan: Plan, _: Layout) -> Iterator[Obstacle]:
    precision = plan.inputs.job.precision
    if precision not in PRECISIONS:
        yield Obstacle(path="inputs.job.precision", feature=f"has no {precision}")


CHECKS: tuple[Check, ...] = (
    _methods,
    _experts,
    _sharding,
    _recompute,
    _precision,
)
