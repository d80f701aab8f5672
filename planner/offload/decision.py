"""A decision: what of each layer is kept, moved or computed again, what streams, and where updates run."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from meshwright.costmodels.layout import FloatArray
from meshwright.planner.offload.optimizer_law import Shares

Choices = NDArray[np.int8]
# A layer's parameters are one flat shard, of which as many equal slices as one likes can stream.
PARTS = 64


class Choice(IntEnum):
    """What becomes of a class of a layer's activations between its two passes."""

    KEEP = 0
    OFFLOAD = 1
    RECOMPUTE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """choices: [layers, classes]. streamed: the share of a layer's parameters that streams, [layers], in whole PARTS.

    whole: a layer whose classes are all computed again repeats its whole forward pass, as checkpointing of layers does.
    overlapped: whether updates on the host, streams and copies run beside one another.
    """

    choices: Choices
    streamed: FloatArray
    shares: Shares
    whole: bool = False
    overlapped: bool = True
