"""Micro-batches make up the global batch, and each sequence is cut into equal parts."""

from meshwright.planner.plan_schema import Plan
from meshwright.planner.verification.check import Failures, Found


def micro_batches(plan: Plan) -> int:
    """Give how many micro-batches a replica runs in a step, the busiest where they run unequal numbers."""
    if plan.replica_batches is not None:
        return max(batch.micro_batches for batch in plan.replica_batches)
    return plan.inputs.job.global_batch // (plan.layout.data_parallel * plan.layout.micro_batch)


def batch(plan: Plan) -> Found:
    """Check that the replicas' micro-batches make up the global batch, and that ranks have equal parts of sequences."""
    layout, total = plan.layout, plan.inputs.job.global_batch
    if plan.replica_batches is not None:
        runs = " + ".join(f"{batch.replicas} x {batch.micro_batches}" for batch in plan.replica_batches)
        return f"({runs}) micro-batches x {layout.micro_batch} = {total} sequences", _unequal(plan)
    count = micro_batches(plan)
    what = f"{layout.data_parallel} replicas x {count} micro-batches x {layout.micro_batch} = {total} sequences"
    return what, _failures(plan, count)


def _failures(plan: Plan, count: int) -> Failures:
    layout, job = plan.layout, plan.inputs.job
    made = layout.data_parallel * count * layout.micro_batch
    if made != job.global_batch:
        path, each = "layout.micro_batch", layout.data_parallel * layout.micro_batch
        yield path, f"{each} sequences at a time don't make up a global batch of {job.global_batch}"
    yield from _parts(plan)


def _unequal(plan: Plan) -> Failures:
    layout, batches = plan.layout, plan.replica_batches or ()
    replicas = sum(batch.replicas for batch in batches)
    if replicas != layout.data_parallel:
        yield "replica_batches", f"are of {replicas} replicas; the layout has {layout.data_parallel}"
    made = layout.micro_batch * sum(batch.replicas * batch.micro_batches for batch in batches)
    if made != plan.inputs.job.global_batch:
        yield "replica_batches", f"make up {made} sequences, not a global batch of {plan.inputs.job.global_batch}"
    yield from _parts(plan)


def _parts(plan: Plan) -> Failures:
    layout, job = plan.layout, plan.inputs.job
    parts = layout.context_parallel * (layout.tensor_parallel if layout.sequence_parallel else 1)
    if job.sequence_length % parts:
        yield "inputs.job.sequence_length", f"{job.sequence_length} tokens aren't cut into {parts} equal parts"
