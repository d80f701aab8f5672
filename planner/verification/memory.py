"""The memory breakdown sums to what is allocated, and what is shown stays within the limit."""

from itertools import pairwise

from meshwright.planner.plan_schema import Plan
from meshwright.planner.verification.check import Failures, Found, same


def memory(plan: Plan) -> Found:
    """Check that the bytes of the breakdown sum to those allocated, and that these rise to the limit in order."""
    predicted = plan.predicted
    what = f"{len(predicted.memory_breakdown_bytes)} parts sum to {predicted.peak_memory_bytes.allocated:,} bytes"
    return f"{what} of {predicted.memory_limit_bytes:,}", _failures(plan)


def _failures(plan: Plan) -> Failures:
    predicted, peak = plan.predicted, plan.predicted.peak_memory_bytes
    parts = 0
    for part in predicted.memory_breakdown_bytes.values():
        parts += part
    if not same(parts, peak.allocated):
        yield "predicted.peak_memory_bytes.allocated", f"is {peak.allocated}; the breakdown sums to {parts}"
    rising = (
        ("peak_memory_bytes.allocated", peak.allocated),
        ("peak_memory_bytes.reserved", peak.reserved),
        ("peak_memory_bytes.nvidia_smi", peak.nvidia_smi),
        *([] if plan.offload else [("memory_limit_bytes", predicted.memory_limit_bytes)]),
    )
    for (lower, less), (upper, more) in pairwise(rising):
        if less > more:
            yield f"predicted.{upper}", f"is {more}, less than {lower}, which is {less}"
    limit = plan.inputs.device.entry.memory.capacity * (1 - plan.inputs.job.memory_headroom)
    if not same(limit, predicted.memory_limit_bytes):
        path = "predicted.memory_limit_bytes"
        yield path, f"is {predicted.memory_limit_bytes}; the device's memory less the headroom is {limit:.0f}"
    held = predicted.nvidia_smi_interval_bytes
    if not held.low <= peak.nvidia_smi <= held.high:
        yield "predicted.nvidia_smi_interval_bytes", f"doesn't hold the predicted {peak.nvidia_smi}"
