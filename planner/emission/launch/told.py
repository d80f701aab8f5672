"""What a training script reads of the plan from its environment, where the launcher's own file has no word for it."""

from meshwright.planner.plan_schema import Plan


def micro_batches(plan: Plan) -> int:
    """Give how many micro-batches a replica accumulates in a step."""
    return plan.inputs.job.global_batch // (plan.layout.data_parallel * plan.layout.micro_batch)


def plan_variables(plan: Plan) -> dict[str, str | None]:
    """Give the variables: the model's name, tokens of a sequence, sequences of a micro-batch, and how many of those."""
    return {
        "PLAN_MODEL": plan.inputs.model.entry.name,
        "PLAN_SEQUENCE_LENGTH": str(plan.inputs.job.sequence_length),
        "PLAN_MICRO_BATCH": str(plan.layout.micro_batch),
        "PLAN_MICRO_BATCHES": str(micro_batches(plan)),
        "PLAN_RECOMPUTE": str(plan.layout.recompute),
    }
