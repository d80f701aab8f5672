"""What PyTorch is asked about a plan: its own model under its own layout, on as many micro-batches as show the peak."""

from collections.abc import Iterator
from dataclasses import replace

from meshwright.catalog.errors import InputError
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Recompute
from meshwright.planner.emission.obstacle import Obstacle
from meshwright.planner.emission.torch.obstacles import SPLIT_BACKWARD, workload_obstacles
from meshwright.planner.ledger.plan_workload import plan_workload
from meshwright.planner.ledger.workload import BF16_BYTES, FLOAT_BYTES, Workload
from meshwright.planner.plan_schema import Plan

ELEMENT_BYTES = {Precision.BF16: BF16_BYTES, Precision.FP32: FLOAT_BYTES}
# Of one replica: with two, gradients of the first are there at the peak of the second.
MICRO_BATCHES_ALONE = 2


def oracle_workload(plan: Plan, *, file: str) -> Workload:
    """Give what PyTorch is to run. Raises InputError where the launcher, or the tracker of FSDP2's memory, can't."""
    workload = plan_workload(plan)
    workload = replace(workload, element_bytes=ELEMENT_BYTES.get(plan.inputs.job.precision, BF16_BYTES))
    for obstacle in (*_obstacles(plan), *workload_obstacles(workload)):
        raise InputError(
            f"the reference launcher {obstacle.feature}",
            file=file,
            path=obstacle.path,
            hint="`meshwright verify` without --with checks all that needs no PyTorch",
        )
    return replace(workload, micro_batches=_shown_by(workload))


def _obstacles(plan: Plan) -> Iterator[Obstacle]:
    layout, job = plan.layout, plan.inputs.job
    if plan.inputs.stack.entry.master_bytes:
        yield Obstacle(
            path="inputs.stack",
            feature=f"keeps fp32 shards as FSDP2 does, and no 16-bit parameters as {plan.inputs.stack.entry.name} does",
        )
    if job.precision not in ELEMENT_BYTES:
        yield Obstacle(path="inputs.job.precision", feature=f"doesn't train in {job.precision}")
    if layout.zero_stage == 0 or layout.zero_shard == 1:
        yield Obstacle(path="layout.zero_shard", feature="has FSDP2's memory tracked, and nothing is sharded here")
    if layout.pipeline_parallel > 1 and layout.schedule in SPLIT_BACKWARD:
        yield Obstacle(path="layout.schedule", feature="has no memory tracked of split backward passes")
    if layout.context_parallel > 1:
        yield Obstacle(path="layout.context_parallel", feature="has no memory tracked of context parallelism")
    if layout.expert_parallel > 1:
        yield Obstacle(path="layout.expert_parallel", feature="has no memory tracked of expert parallelism")
    if layout.recompute is Recompute.SELECTIVE:
        yield Obstacle(
            path="layout.recompute", feature="recomputes attention's core alone, not what the plan's stack selects"
        )


def _shown_by(workload: Workload) -> int:
    """Give how many micro-batches reach the peak: all of GPipe's, and of other pipelines' two rounds."""
    layout = workload.layout
    if layout.pipeline_parallel == 1:
        return min(workload.micro_batches, MICRO_BATCHES_ALONE)
    if layout.schedule is Schedule.GPIPE:
        return workload.micro_batches
    return min(workload.micro_batches, 2 * layout.pipeline_parallel)
