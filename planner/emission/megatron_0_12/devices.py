"""Which devices MindSpeed patches Megatron-LM for."""

from meshwright.planner.plan_schema import Plan


def has_mindspeed(plan: Plan) -> bool:
    """Whether MindSpeed's arguments are there: on Ascend devices, and only there."""
    return plan.inputs.device.entry.vendor == "huawei"
