"""The workload of a plan."""

from meshwright.costmodels.transformer import transformer_of
from meshwright.planner.ledger.workload import Workload
from meshwright.planner.plan_schema import Plan
from meshwright.planner.replica_batches import require_equal_batches


def plan_workload(plan: Plan) -> Workload:
    """Give what a plan trains, in fp32: its model, batch and sequence length under its layout.

    Raises InputError where its replicas run unequal numbers of micro-batches.
    """
    require_equal_batches(plan, what="the reference launcher")
    layout, job = plan.layout.layout(), plan.inputs.job
    return Workload(
        model=transformer_of(plan.inputs.model.entry),
        layout=layout,
        stages=tuple(stage.layers() for stage in plan.stages),
        sequence_length=job.sequence_length,
        micro_batches=job.global_batch // (layout.data_parallel * layout.micro_batch),
    )
