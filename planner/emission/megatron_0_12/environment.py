"""The environment of Megatron-LM core 0.12; on Ascend devices that of MindSpeed-LLM's examples."""

from meshwright.planner.emission.megatron.environment import CONNECTIONS
from meshwright.planner.emission.megatron.environment import environment as megatron_environment
from meshwright.planner.emission.megatron_0_12.devices import has_mindspeed
from meshwright.planner.plan_schema import Plan

ASCEND = {
    CONNECTIONS: "1",
    "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True",
    "HCCL_CONNECT_TIMEOUT": "1800",  # seconds: groups of large clusters take longer than the default two minutes
}


def environment(plan: Plan) -> dict[str, str | None]:
    """Give the variables to set; None unsets one."""
    return dict(ASCEND) if has_mindspeed(plan) else megatron_environment(plan)
