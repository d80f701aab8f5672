"""How ranks are numbered through the axes of the mesh."""

from enum import StrEnum


class AxisOrder(StrEnum):
    """The axes, fastest first; neighbours in rank are near one another on the network.

    tp-cp-dp-pp: replicas of a stage are neighbours, stages far apart. tp-cp-pp-dp: stages of a replica are neighbours,
    replicas far apart (Megatron-Core's --use-tp-pp-dp-mapping).
    """

    PIPELINE_OUTERMOST = "tp-cp-dp-pp"
    DATA_OUTERMOST = "tp-cp-pp-dp"
