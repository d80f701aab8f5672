"""Orders of forward and backward passes in a pipeline."""

from enum import StrEnum


class Schedule(StrEnum):
    """The order of passes; interleaved where a stage holds several chunks of the model."""

    GPIPE = "gpipe"
    ONE_F_ONE_B = "1f1b"
    INTERLEAVED = "interleaved"
    ZERO_BUBBLE_H1 = "zb-h1"
    ZERO_BUBBLE_2P = "zb-2p"
