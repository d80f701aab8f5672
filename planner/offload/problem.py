"""What is decided about: one rank's layers, states and memory, as the cost model has them without any offloading."""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import FloatArray
from meshwright.costmodels.tensor_classes import TensorClass
from meshwright.planner.offload.host import Host
from meshwright.planner.offload.optimizer_law import OptimizerWork

CLASSES = tuple(TensorClass)
INPUT = CLASSES.index(TensorClass.INPUT)
# Layers whose buffers are on their way at once: one in work, one in flight.
WINDOW = 2
# Parts in which the optimizer's shares are counted.
SUBGROUPS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The layers of a rank in order, [layers] and [layers, classes].

    forward_s, backward_s: of one micro-batch. whole_s: of computing a layer's whole forward pass again.
    kept_bytes, again_s: by class, of keeping it, and of computing it again; inf where it can't be.
    weight_bytes: what a rank holds of a layer's parameters for the passes. drain_bytes: of its gradients, which go to
    the host with every micro-batch where all parameters are updated there.
    """

    forward_s: FloatArray
    backward_s: FloatArray
    whole_s: FloatArray
    kept_bytes: FloatArray
    again_s: FloatArray
    weight_bytes: FloatArray
    drain_bytes: FloatArray

    def __len__(self) -> int:
        """Count the layers."""
        return len(self.forward_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Device memory of a rank in bytes, as its allocator counts it.

    limit: what there is. states: that can't leave: parameters outside the layers, the workspace.
    gradients: of all parameters; drained: how much of those leave where all are updated on the host.
    optimizer: of all parameters, where they are updated on the device; step: their fp32 gradients while it steps, of
    which `beside` can't be where activations were.
    passes: what the passes take beside activations. loss, working: at the loss, and in a layer's backward pass.
    stream: buffers of what streams through the device while the optimizer steps.
    outside, slack: what nvidia-smi shows beyond, in bytes and as a share.
    """

    limit: float
    states: float
    gradients: float
    drained: float
    optimizer: float
    step: float
    beside: float
    passes: float
    loss: float
    working: float
    stream: float
    outside: float = 0.0
    slack: float = 0.0

    def shown_bytes(self, held: float) -> float:
        """Give what nvidia-smi shows of so many bytes."""
        return held * (1 + self.slack) + self.outside


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One rank's decision.

    first_s, middle_s, last_s: of a micro-batch, before the layers, between their passes, and behind them.
    passes: micro-batches of a step. stretch: by what waiting for other stages multiplies them. slowest_s: what a pass
    takes at least, as another stage takes that. other_s: the step's other seconds.
    held: micro-batches whose activations are there at once.
    streamable: whether parameters may stream.
    """

    layers: Layers
    memory: DeviceMemory
    host: Host
    optimizer: OptimizerWork
    first_s: float = 0.0
    middle_s: float = 0.0
    last_s: float = 0.0
    passes: float = 1.0
    stretch: float = 1.0
    slowest_s: float = 0.0
    other_s: float = 0.0
    held: float = 1.0
    window: int = WINDOW
    streamable: bool = True

    @property
    def again(self) -> np.ndarray:
        """Which classes can be computed again, [layers, classes]."""
        return np.isfinite(self.layers.again_s)
