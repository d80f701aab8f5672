"""What leaves the device: shares of one whole, each layer decided once, and within its budget."""

from meshwright.planner.plan_schema import OffloadSection, Plan
from meshwright.planner.verification.check import Failures, Found, same


def offload(plan: Plan) -> Found:
    """Check the section of what leaves the device by its own figures; a plan without one keeps everything."""
    section = plan.offload
    if section is None:
        return "nothing leaves the device", ()
    held, budget = section.memory_bytes.device, section.budget_bytes
    what = (
        f"a step of {section.step_time_s:.6g} s for {section.target}, with {held:,} bytes of {budget:,} on the device"
    )
    return what, _failures(section)


def _failures(section: OffloadSection) -> Failures:
    shares = section.optimizer
    if not same(shares.cpu + shares.streamed + shares.resident, 1.0):
        yield "offload.optimizer", "has shares that don't sum to 1"
    if not same(sum(section.breakdown_s.values()), section.step_time_s):
        yield "offload.step_time_s", "isn't what its breakdown sums to"
    if section.step_time_s < section.lower_bound_s and not same(section.step_time_s, section.lower_bound_s):
        yield "offload.step_time_s", f"is below its lower bound of {section.lower_bound_s} s"
    if section.memory_bytes.device > section.budget_bytes:
        yield "offload.memory_bytes.device", f"is {section.memory_bytes.device}, more than budget_bytes"
    if len(section.parameters) != len(section.streamed_shares):
        yield "offload.streamed_shares", "aren't of as many layers as the parameters"
