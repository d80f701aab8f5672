"""What Megatron-LM can't run of a plan, also where its validation lets it pass and its training code doesn't."""

from collections.abc import Callable, Iterator

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.emission.megatron.layout_arguments import CONTEXT_METHODS, MODULES, layer_counts
from meshwright.planner.emission.megatron.model_arguments import model_obstacles
from meshwright.planner.emission.obstacle import Obstacle
from meshwright.planner.plan_schema import Plan


def obstacles(plan: Plan) -> Iterator[Obstacle]:
    """Give all that keeps Megatron-LM from running a plan."""
    yield from model_obstacles(plan.inputs.model.entry)
    for check in CHECKS:
        yield from check(plan, plan.layout.layout())


def _schedule(_: Plan, layout: Layout) -> Iterator[Obstacle]:
    known = (Schedule.ONE_F_ONE_B, Schedule.INTERLEAVED)
    if layout.pipeline_parallel > 1 and layout.schedule not in known:
        plain = {"schedule": Schedule.ONE_F_ONE_B, "virtual_pipeline": 1, "split": (), "recompute_split": ()}
        yield Obstacle(path="layout.schedule", feature=f"has no {layout.schedule} schedule", instead=(plain,))


def interleaving(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    """Hold micro-batches against rounds of P: all must be whole (megatron/core/pipeline_parallel/schedules.py)."""
    stages, job = layout.pipeline_parallel, plan.inputs.job
    micro_batches = job.global_batch // (layout.data_parallel * layout.micro_batch)
    if layout.virtual_pipeline == 1 or layout.schedule is not Schedule.INTERLEAVED:
        return
    if micro_batches % stages:
        yield Obstacle(
            path="layout.virtual_pipeline",
            feature=f"interleaves micro-batches in rounds of {stages}, and {micro_batches} aren't whole rounds",
            instead=({"virtual_pipeline": 1, "schedule": Schedule.ONE_F_ONE_B, "split": (), "recompute_split": ()},),
        )


def vocabulary(_: Plan, layout: Layout) -> Iterator[Obstacle]:
    """Hold the vocabulary against stages: embedding and head are the first and the last one's."""
    if layout.vocabulary_parallel and layout.pipeline_parallel > 1:
        yield Obstacle(
            path="layout.vocabulary_parallel",
            feature="doesn't share embedding and head over the stages",
            instead=({"vocabulary_parallel": False},),
        )


def _stages(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    if layout.pipeline_parallel > 1 and 0 in layer_counts(plan)[1:-1]:
        yield Obstacle(path="layout.split", feature="has no empty stages", instead=({"split": ()},))


def context(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    """Hold context parallelism against its methods, and sequences against the pieces it cuts them into."""
    ranks, length = layout.context_parallel, plan.inputs.job.sequence_length
    if ranks == 1:
        return
    if layout.context_method not in CONTEXT_METHODS:
        yield Obstacle(
            path="layout.context_method",
            feature=f"has no {layout.context_method} method of context parallelism",
            instead=({"context_method": ContextMethod.RING, "ulysses_parallel": 1},),
        )
    if length % (2 * ranks):
        yield Obstacle(
            path="layout.context_parallel",
            feature=f"cuts sequences into 2 x {ranks} pieces, and {length} tokens aren't whole pieces",
        )


def tensor(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    """Hold tensor ranks against mixtures of experts and sequences."""
    mixture = plan.inputs.model.entry.experts is not None
    if mixture and layout.tensor_parallel > 1 and not layout.sequence_parallel:
        yield Obstacle(
            path="layout.sequence_parallel",
            feature="trains mixtures of experts under tensor parallelism only with sequence parallelism",
            instead=({"sequence_parallel": True},),
        )
    if plan.inputs.job.sequence_length % (layout.tensor_parallel * layout.context_parallel):
        yield Obstacle(path="layout.tensor_parallel", feature="needs sequences that its ranks can share evenly")


def sharding(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    """Hold shards against those of the distributed optimizer and of its FSDP."""
    if any(size != layout.zero_shard for size in layout.shards.values()):
        whole = {"gradient_shard": None, "parameter_shard": None, "backward_shard": None}
        yield Obstacle(
            path="layout.parameter_shard",
            feature="shards parameters, gradients and optimizer states over the same ranks",
            instead=(whole,),
        )
    if layout.zero_stage < 2:
        return
    if layout.pipeline_parallel > 1 and layout.virtual_pipeline > 1:
        yield Obstacle(
            path="layout.zero_stage",
            feature="doesn't shard gradients and parameters of interleaved stages",
            instead=({"zero_stage": 1, "gradient_shard": None, "parameter_shard": None, "backward_shard": None},),
        )
    if plan.inputs.job.precision is Precision.FP16:
        yield Obstacle(
            path="inputs.job.precision",
            feature="doesn't shard gradients and parameters in fp16",
            instead=({"zero_stage": 1, "gradient_shard": None, "parameter_shard": None, "backward_shard": None},),
        )


def _recompute(plan: Plan, layout: Layout) -> Iterator[Obstacle]:
    if layout.recompute is Recompute.SELECTIVE:
        modules = plan.inputs.stack.entry.selective_recompute
        yield from (unnamed_module(module) for module in modules if module not in MODULES)
    yield from recomputed_split(layout)


def recomputed_split(layout: Layout) -> Iterator[Obstacle]:
    """Hold what each chunk recomputes against the one number for all of them."""
    counts = set(layout.recompute_split)
    uneven = len(counts) > 1 or (counts and layout.recompute is Recompute.SELECTIVE)
    if uneven and counts != {0}:
        most = max(layout.recompute_split)
        same = {"recompute_split": ()}
        yield Obstacle(
            path="layout.recompute_split",
            feature="recomputes the same number of layers of each stage",
            instead=(
                same | ({} if layout.recompute is Recompute.SELECTIVE else {"recompute_layers": most}),
                same | {"recompute_layers": None},
            ),
        )


def unnamed_module(module: RecomputedModule) -> Obstacle:
    """Give the obstacle of a part of a layer that it has no name for."""
    return Obstacle(
        path="layout.recompute",
        feature=f"doesn't recompute {module} by itself",
        instead=({"recompute": Recompute.FULL}, {"recompute": Recompute.NONE, "recompute_split": ()}),
    )


CHECKS: tuple[Callable[[Plan, Layout], Iterator[Obstacle]], ...] = (
    _schedule,
    interleaving,
    vocabulary,
    _stages,
    context,
    tensor,
    sharding,
    _recompute,
)
