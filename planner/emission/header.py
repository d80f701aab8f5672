"""The lines at the top of each emitted file: what made it, of which plan, and for which version of its reader."""

from meshwright.planner.emission.target import CONSUMERS, EmitTarget
from meshwright.planner.plan_schema import Plan


def header(plan: Plan, target: EmitTarget) -> str:
    """Give the header of a file, without marks of comment; a line each."""
    consumer, job = CONSUMERS[target], plan.inputs.job
    model, cluster = plan.inputs.model.entry.name, plan.inputs.cluster.entry.name
    return (
        f"For {consumer.name} {consumer.version}, by meshwright {plan.meshwright}.\n"
        f"{model} on {plan.mesh.devices} devices of {cluster}, {job.global_batch} sequences of "
        f"{job.sequence_length} tokens a step; predicted step {plan.predicted.step_time_s:.6g} s.\n"
        f"Inputs {plan.inputs.digest}"
    )
