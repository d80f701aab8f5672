"""Orders of forward and backward passes in a pipeline."""

from enum import StrEnum


class Schedule(StrEnum):
    """The order of passes; interleaved where a stage holds several chunks of the model in rounds.

    The v-schedules and DualPipeV fold the model over the pipeline and back, DualPipe runs it both ways at once.
    """

    GPIPE = "gpipe"
    ONE_F_ONE_B = "1f1b"
    INTERLEAVED = "interleaved"
    ZERO_BUBBLE_H1 = "zb-h1"
    ZERO_BUBBLE_2P = "zb-2p"
    V_HALF = "v-half"
    V_MIN = "v-min"
    ZERO_BUBBLE_V = "zbv"
    DUAL_PIPE = "dualpipe"
    DUAL_PIPE_V = "dualpipev"
