"""What DeepSpeed's configuration has no words for: pipelines and expert layers are made in a model's code."""

from collections.abc import Iterator

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.precision import Precision
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.emission.axes_first import Check, axes_first
from meshwright.planner.emission.linear_attention import without_linear_attention
from meshwright.planner.emission.obstacle import Obstacle
from meshwright.planner.emission.replicas import WHOLE_SHARDS, as_replicas, without_axis
from meshwright.planner.plan_schema import Plan

PRECISIONS = (Precision.FP32, Precision.BF16, Precision.FP16)


def obstacles(plan: Plan) -> Iterator[Obstacle]:
    """Give what keeps DeepSpeed from running a plan: first what its axes do, then what hangs on those."""
    yield from without_linear_attention(plan.inputs.model.entry)
    yield from axes_first(plan, axes=_axes, checks=CHECKS)


def _axes(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    model = plan.inputs.model.entry
    if layout.pipeline_parallel > 1:
        yield without_axis(plan, "pipeline_parallel", "takes the stages of a pipeline from a model's code")
    if layout.context_parallel > 1 and layout.tensor_parallel > 1:
        either = as_replicas(plan, "context_parallel") + as_replicas(plan, "tensor_parallel")
        feature = "has no Ulysses beside tensor parallelism"
        yield Obstacle(path="layout.context_parallel", feature=feature, instead=either)
    if layout.context_parallel > 1 and model.heads % layout.context_parallel:
        yield without_axis(plan, "context_parallel", f"can't exchange {model.heads} heads over as many ranks")
    if model.kv_heads % layout.tensor_parallel:
        yield without_axis(plan, "tensor_parallel", f"leaves ranks beyond the {model.kv_heads} key heads nothing to do")


def _methods(_: Plan, layout: Layout) -> Iterator[Obstacle]:
    if layout.context_parallel > 1 and layout.context_method is not ContextMethod.ULYSSES:
        yield Obstacle(
            path="layout.context_method",
            feature=f"has no {layout.context_method} method of context parallelism",
            instead=({"context_method": ContextMethod.ULYSSES, "ulysses_parallel": 1},),
        )
    if layout.sequence_parallel and layout.tensor_parallel > 1:
        yield Obstacle(
            path="layout.sequence_parallel",
            feature="doesn't share tokens among tensor ranks",
            instead=({"sequence_parallel": False},),
        )


def _experts(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    """Hold experts against AutoEP, which we emit by itself: no other axis, and experts whole."""
    if plan.inputs.model.entry.experts is None:
        return
    alone: dict[str, object] = {"expert_parallel": 1, "expert_tensor_parallel": layout.tensor_parallel}
    if layout.expert_parallel > 1 and layout.tensor_parallel * layout.context_parallel > 1:
        yield Obstacle(
            path="layout.expert_parallel",
            feature="spreads experts beside data parallelism only",
            instead=(alone,),
        )
    elif layout.expert_tensor_parallel != (1 if layout.expert_parallel > 1 else layout.tensor_parallel):
        yield Obstacle(
            path="layout.expert_tensor_parallel",
            feature="cuts experts as the other matrices, and not at all where they are spread",
            instead=({"expert_tensor_parallel": 1 if layout.expert_parallel > 1 else layout.tensor_parallel},),
        )


def _sharding(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    if layout.zero_stage == 0:
        return
    ranks = layout.data_parallel * layout.context_parallel
    if layout.zero_shard != ranks:
        yield Obstacle(
            path="layout.zero_shard",
            feature=f"shards over all {ranks} ranks that hold the same",
            instead=({"zero_shard": ranks, **WHOLE_SHARDS},),
        )
        return
    for name, feature in (("gradient_shard", "gradients"), ("parameter_shard", "parameters")):
        if layout.shards[name] != layout.zero_shard:
            yield Obstacle(
                path=f"layout.{name}",
                feature=f"shards {feature} over the same ranks as optimizer states",
                instead=(dict(WHOLE_SHARDS),),
            )
            return
    yield from _secondary(plan, layout)


def _secondary(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    """Hold the secondary partition against hpZ, which cuts the world itself into groups of neighbours."""
    if layout.shards["backward_shard"] == layout.zero_shard:
        return
    whole = ({"backward_shard": None},)
    path = "layout.backward_shard"
    if layout.shards["backward_shard"] == 1:
        yield Obstacle(path=path, feature="doesn't keep parameters whole from forward to backward pass", instead=whole)
    elif layout.tensor_parallel > 1:
        yield Obstacle(path=path, feature="has no secondary partition beside tensor parallelism", instead=whole)
    elif plan.inputs.model.entry.experts is not None and layout.expert_parallel > 1:
        yield Obstacle(path=path, feature="has no secondary partition beside expert parallelism", instead=whole)


def _quantised(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    if plan.inputs.stack.entry.quantised_reduction and layout.zero_stage == 3 and layout.expert_parallel > 1:
        yield Obstacle(
            path="layout.expert_parallel",
            feature="doesn't quantise gradients beside expert parallelism",
            instead=({"expert_parallel": 1},),
        )


def _recompute(_: Plan, layout: Layout) -> Iterator[Obstacle]:
    every = {"recompute_layers": None, "recompute_split": ()}
    choices = (every | {"recompute": Recompute.FULL}, every | {"recompute": Recompute.NONE})
    if layout.recompute is Recompute.SELECTIVE:
        yield Obstacle(path="layout.recompute", feature="recomputes whole layers or nothing", instead=choices)
    elif layout.recompute is Recompute.FULL and (layout.recompute_layers is not None or layout.recompute_split):
        path = "recompute_split" if layout.recompute_split else "recompute_layers"
        yield Obstacle(path=f"layout.{path}", feature="recomputes all layers or none", instead=choices)


def _precision(plan: Plan, _: Layout) -> Iterator[Obstacle]:
    precision = plan.inputs.job.precision
    if precision not in PRECISIONS:
        yield Obstacle(path="inputs.job.precision", feature=f"has no {precision}")


CHECKS: tuple[Check, ...] = (
    _methods,
    _experts,
    _sharding,
    _quantised,
    _recompute,
    _precision,
)
