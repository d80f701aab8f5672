"""What Nanotron can't run of a plan, also where its configuration has words for it."""

from collections.abc import Iterator

from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.costmodels.stages import chunk_sizes
from meshwright.planner.emission.axes_first import Check, axes_first
from meshwright.planner.emission.launch.told import micro_batches
from meshwright.planner.emission.nanotron.model_obstacles import model_obstacles
from meshwright.planner.emission.nanotron.stages import stage_sizes
from meshwright.planner.emission.obstacle import Obstacle
from meshwright.planner.emission.replicas import WHOLE_SHARDS, without_axis
from meshwright.planner.plan_schema import Plan

ENGINES = {Schedule.GPIPE: "afab", Schedule.ONE_F_ONE_B: "1f1b"}
PLAIN = {"schedule": Schedule.ONE_F_ONE_B, "virtual_pipeline": 1, "split": (), "recompute_split": ()}


def obstacles(plan: Plan) -> Iterator[Obstacle]:
    """Give what keeps Nanotron from running a plan: first its axes, one at a time, then what hangs on those."""
    yield from model_obstacles(plan.inputs.model.entry)
    yield from axes_first(plan, axes=_axes, checks=CHECKS)


def _axes(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    """Hold axes against its trainer (nanotron/trainer.py) and its model (nanotron/models/qwen.py)."""
    model, tensor, stages = plan.inputs.model.entry, layout.tensor_parallel, layout.pipeline_parallel
    if layout.context_parallel > 1:
        # The degree is one of its configuration, but random parameters aren't made under it.
        yield without_axis(
            plan, "context_parallel", "starts no training under context parallelism, it only resumes some"
        )
    if model.kv_heads % tensor:
        yield without_axis(
            plan, "tensor_parallel", f"can't share {model.kv_heads} key heads among {tensor} tensor ranks"
        )
    if stage_sizes(model, stages) is None:
        yield without_axis(plan, "pipeline_parallel", f"leaves the last of {stages} stages empty, as it balances them")


def _schedule(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    stages = layout.pipeline_parallel
    if stages == 1:
        return
    path = "layout.schedule"
    if layout.schedule not in ENGINES:
        yield Obstacle(path=path, feature=f"has no {layout.schedule} schedule", instead=(PLAIN,))
    elif layout.schedule is Schedule.ONE_F_ONE_B and micro_batches(plan) < stages - 1:
        feature = f"needs {stages - 1} micro-batches under 1f1b, not {micro_batches(plan)}"
        yield Obstacle(path=path, feature=feature, instead=({"schedule": Schedule.GPIPE},))
    if layout.vocabulary_parallel:
        yield Obstacle(
            path="layout.vocabulary_parallel",
            feature="doesn't share embedding and head over the stages",
            instead=({"vocabulary_parallel": False},),
        )


def _stages(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    model, stages = plan.inputs.model.entry, layout.pipeline_parallel
    if layout.virtual_pipeline > 1 or stages == 1:
        return
    own, even = stage_sizes(model, stages), chunk_sizes(model.layers, stages)
    if own is not None and own != (layout.split or even):
        feature = f"cuts the layers itself, into {'-'.join(map(str, own))}"
        change = {"split": () if own == even else own, "recompute_split": ()}
        yield Obstacle(path="layout.split", feature=feature, instead=(change,))


def _tensor(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    tokens = plan.inputs.job.sequence_length * layout.micro_batch
    if layout.sequence_parallel and tokens % layout.tensor_parallel:
        yield Obstacle(
            path="layout.sequence_parallel",
            feature=f"can't share {tokens} tokens evenly among {layout.tensor_parallel} tensor ranks",
            instead=({"sequence_parallel": False},),
        )


def _experts(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    """Hold experts against its mesh, which has no ranks for them: they'd come on top of all others."""
    degrees = (("expert_parallel", layout.expert_parallel), ("expert_tensor_parallel", layout.expert_tensor_parallel))
    if plan.inputs.model.entry.experts is None:
        return
    for name, degree in degrees:
        if degree > 1:
            feature = "doesn't spread experts" if name == "expert_parallel" else "doesn't cut experts"
            yield Obstacle(path=f"layout.{name}", feature=feature, instead=({name: 1},))


def _sharding(_: Plan, layout: Layout) -> Iterator[Obstacle]:
    ranks = layout.data_parallel
    whole = {"zero_stage": 1, "zero_shard": ranks, **WHOLE_SHARDS}
    if layout.zero_stage > 1:
        yield Obstacle(path="layout.zero_stage", feature="shards optimizer states only", instead=(whole,))
    elif layout.zero_stage == 1 and layout.zero_shard != ranks:
        yield Obstacle(path="layout.zero_shard", feature="shards over all replicas", instead=(whole,))


def _recompute(_: Plan, layout: Layout) -> Iterator[Obstacle]:
    every = {"recompute_layers": None, "recompute_split": ()}
    partial = layout.recompute_layers is not None or bool(layout.recompute_split)
    if layout.recompute is Recompute.SELECTIVE or (layout.recompute is Recompute.FULL and partial):
        yield Obstacle(
            path="layout.recompute",
            feature="recomputes all layers as a whole, or none",
            instead=(every | {"recompute": Recompute.FULL}, every | {"recompute": Recompute.NONE}),
        )


def _precision(plan: Plan, _: Layout) -> Iterator[Obstacle]:
    precision = plan.inputs.job.precision
    if precision is not Precision.BF16:
        yield Obstacle(path="inputs.job.precision", feature=f"trains in bf16, not in {precision}")


CHECKS: tuple[Check, ...] = (
    _schedule,
    _stages,
    _tensor,
    _experts,
    _sharding,
    _recompute,
    _precision,
)
