"""What chains send one another once a step in full: its seconds and bytes, and that the other way takes no less."""

from collections.abc import Sequence

from meshwright.catalog.precision import Precision
from meshwright.planner.mixed.plan_schema import ExchangeSection, MixedPlan
from meshwright.planner.verification.check import ROUNDING, Failures, same
from meshwright.planner.verification.mixed.joins import Edge, larger_side
from meshwright.planner.verification.mixed.model_size import BESIDE_MATRICES, model_size

# Of a parameter on the wire.
PARAMETER_BYTES = 2


def exchange_in_full(plan: MixedPlan, exchange: ExchangeSection, tree: Sequence[Edge]) -> Failures:
    """Check the seconds of an exchange in full: by how many parameters the bytes are of, and the tree's edges."""
    gradient_bytes = reduce_bytes(plan)
    latency_s = sum(edge.join.latency_s for edge in tree)
    narrowest = min(edge.join.bytes_per_s for edge in tree)
    larger = max(larger_side(tree, edge) / (len(tree) + 1) / edge.join.bytes_per_s for edge in tree)
    if str(exchange.across) == "copies":
        count = exchange.sent_bytes / (2 * gradient_bytes * len(tree))
        expected_s = (count * gradient_bytes / narrowest + 2 * latency_s, 0.0)
        other_s = count * (gradient_bytes + PARAMETER_BYTES) * larger + 2 * latency_s
    else:
        count = exchange.sent_bytes / ((gradient_bytes + PARAMETER_BYTES) * len(tree))
        expected_s = (count * gradient_bytes * larger + latency_s, count * PARAMETER_BYTES * larger + latency_s)
        other_s = count * gradient_bytes / narrowest + 2 * latency_s
    for field, told_s, seconds in zip(
        ("gradients_s", "parameters_s"), (exchange.gradients_s, exchange.parameters_s), expected_s, strict=True
    ):
        if not same(told_s, seconds):
            message = f"is {told_s}; {exchange.sent_bytes} bytes over the links take {seconds:.9g}"
            yield f"mixed.exchange.{field}", message
    if sum(expected_s) > other_s * (1 + ROUNDING):
        yield "mixed.exchange.across", f"is {exchange.across}; the other way takes {other_s:.9g} s"
    yield from of_all_parameters(plan, count)
    for number, chain in enumerate(plan.mixed.chains):
        if chain.exposed_s > sum(expected_s) * (1 + ROUNDING):
            yield f"mixed.chains.{number}.exposed_s", f"is {chain.exposed_s}, longer than the exchange"


def of_all_parameters(plan: MixedPlan, count: float) -> Failures:
    """Check how many parameters the bytes of an exchange are of, where the model's are counted."""
    size = model_size(plan.inputs.model.entry, sequence_length=plan.inputs.job.sequence_length)
    if size is not None and not size.parameters * (1 - ROUNDING) <= count <= size.parameters * (1 + BESIDE_MATRICES):
        yield "mixed.exchange.sent_bytes", f"are of {count:.0f} parameters; the matrices have {size.parameters}"


def reduce_bytes(plan: MixedPlan) -> int:
    """Give the bytes of a gradient on the wire: fp32 ones are whole, those of fp16 have no more than their sums."""
    stack = plan.inputs.stack.entry
    if plan.inputs.job.precision is Precision.FP16:
        return min(stack.reduce_bytes, stack.fp16_gradient_bytes)
    return 4 if plan.inputs.job.precision is Precision.FP32 else stack.reduce_bytes
