"""When ranks wait for one another."""

from enum import StrEnum


class Mode(StrEnum):
    """lockstep: all ranks after each micro-batch, as under FlexSP, Megatron-Core, and ZeRO-2 and ZeRO-3.

    free: only the ranks of a group, as under ByteScale's hybrid data parallelism.
    """

    LOCKSTEP = "lockstep"
    FREE = "free"
