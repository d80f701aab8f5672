"""The software that is to run an offload plan."""

from enum import StrEnum


class OffloadTarget(StrEnum):
    """Launchers, and `free`: whatever the laws allow. Deep Optimizer States are a DeepSpeed that streams subgroups."""

    FREE = "free"
    DEEPSPEED = "deepspeed"
    DEEP_OPTIMIZER_STATES = "deep-optimizer-states"
    MEGATRON = "megatron"
    TORCH = "torch"
