"""The environment that Megatron-LM asks for.

Before Blackwell, kernels of communication must be queued ahead of those of compute for the two to overlap, which one
connection to the device makes sure of: its validation asks for CUDA_DEVICE_MAX_CONNECTIONS=1 under tensor or context
parallelism. Its FSDP needs the opposite, several connections, for its gathers to overlap.

Where activations are offloaded, it asks TransformerEngine from 2.10 on not to move weights (NVTE_CPU_OFFLOAD_V1).
"""

from meshwright.planner.plan_schema import Plan

WITHOUT_WEIGHTS = "NVTE_CPU_OFFLOAD_V1"
CONNECTIONS = "CUDA_DEVICE_MAX_CONNECTIONS"


def environment(plan: Plan) -> dict[str, str | None]:
    """Give the variables to set; None unsets one."""
    offloaded = plan.offload is not None and "offload-modules" in plan.offload.settings
    return _connections(plan) | ({WITHOUT_WEIGHTS: "1"} if offloaded else {})


def _connections(plan: Plan) -> dict[str, str | None]:
    layout, device = plan.layout, plan.inputs.device.entry
    if device.vendor != "nvidia":
        return {CONNECTIONS: None if layout.zero_stage > 1 else "1"}
    if layout.zero_stage > 1:
        return {CONNECTIONS: None}
    shared = layout.tensor_parallel > 1 or layout.context_parallel > 1
    return {CONNECTIONS: "1"} if shared and device.family != "blackwell" else {}
