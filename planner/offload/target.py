"""The software that is to run an offload plan."""

from enum import StrEnum


class OffloadTarget(StrEnum):
    """Launchers, and `free`: whatever the laws allow."""

    FREE = "free"
    DEEPSPEED = "deepspeed"
    MEGATRON = "megatron"
    TORCH = "torch"
