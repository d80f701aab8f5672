"""What is sharded is cut into whole parts: optimizer states, gradients, parameters, heads."""

from meshwright.planner.plan_schema import Plan
from meshwright.planner.verification.check import Failures, Found


def shards(plan: Plan) -> Found:
    """Check that each sharding group is a whole part of the one that it is taken from."""
    layout = plan.layout
    replicas = layout.data_parallel * layout.context_parallel
    what = f"ZeRO-{layout.zero_stage} over {layout.zero_shard} of {replicas} ranks; heads over {layout.tensor_parallel}"
    return what, _failures(plan, replicas)


def _failures(plan: Plan, replicas: int) -> Failures:
    layout, model = plan.layout, plan.inputs.model.entry
    parameters = layout.parameter_shard or layout.zero_shard
    for name, size, whole in (
        ("zero_shard", layout.zero_shard, replicas),
        ("gradient_shard", layout.gradient_shard, layout.zero_shard),
        ("parameter_shard", layout.parameter_shard, layout.zero_shard),
        ("backward_shard", layout.backward_shard, parameters),
    ):
        if size is not None and whole % size:
            yield f"layout.{name}", f"{size} ranks don't divide the {whole} that they are taken from"
    if layout.zero_stage == 0 and layout.zero_shard > 1:
        yield "layout.zero_shard", f"is {layout.zero_shard}, but ZeRO stage 0 shards nothing"
    if model.heads % layout.tensor_parallel:
        yield "layout.tensor_parallel", f"{layout.tensor_parallel} ranks don't divide {model.heads} attention heads"
