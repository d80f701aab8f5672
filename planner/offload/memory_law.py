"""What a decision takes of the device, of the host and of its drives, in bytes of one rank.

at the loss     states + optimizer + gradients + kept activations x held + windows + logits
in a layer      the same, with what the layer computes again, and its working set, in place of the logits
at the step     states + optimizer + gradients + fp32 gradients + buffers of what streams
host            12 (c - n + f) P + 4 c P + activations that left x held + parameters that stream
drives          12 n P
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import BoolArray, FloatArray
from meshwright.planner.offload.decision import Choice, Decision
from meshwright.planner.offload.optimizer_law import STATE_BYTES
from meshwright.planner.offload.problem import DeviceMemory, Problem

Number = FloatArray | float

# The host adds gradients up in fp32.
HOST_GRADIENT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one rank at their peak; device: as its allocator counts them."""

    device: float
    host: float
    nvme: float

    def fits(self, problem: Problem) -> bool:
        """Whether all three are within what there is, but for rounding."""
        host = problem.host
        return (
            self.device <= problem.memory.limit * (1 + 1e-9)
            and self.host <= host.memory_bytes * (1 + 1e-9)
            and self.nvme <= host.nvme_bytes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Bytes that a decision's activations and parameters take on device and host.

    kept: of all micro-batches in flight, with buffers. again: of the layer that computes the most again.
    weights: of layers' parameters, with buffers. left: on the host, activations and parameters.
    """

    kept: float
    again: float
    weights: float
    left: float


def held_of(problem: Problem, decision: Decision) -> Held:
    """Give what activations and parameters take, whatever the optimizer's shares are."""
    layers, choices = problem.layers, decision.choices
    of_layer = {choice: np.where(choices == choice, layers.kept_bytes, 0.0).sum(axis=1) for choice in Choice}
    streamed = decision.streamed * layers.weight_bytes
    return Held(
        kept=problem.held * float(of_layer[Choice.KEEP].sum())
        + problem.window * float(of_layer[Choice.OFFLOAD].max(initial=0.0)),
        again=float(of_layer[Choice.RECOMPUTE].max(initial=0.0)),
        weights=float(layers.weight_bytes.sum() - streamed.sum()) + problem.window * float(streamed.max(initial=0.0)),
        left=problem.held * float(of_layer[Choice.OFFLOAD].sum()) + float(streamed.sum()),
    )


def memory_of(problem: Problem, decision: Decision) -> Memory:
    """Give the peak bytes of a decision."""
    held, shares = held_of(problem, decision), decision.shares
    cpu, streamed, resident, nvme = (
        float(share) for share in (shares.cpu, shares.streamed, shares.resident, shares.nvme)
    )
    parameters = problem.optimizer.parameters
    return Memory(
        device=float(device_bytes(problem.memory, held, cpu=cpu, resident=resident, streams=streamed > 0)),
        host=(STATE_BYTES * (cpu - nvme + streamed) + HOST_GRADIENT_BYTES * cpu) * parameters + held.left,
        nvme=STATE_BYTES * nvme * parameters,
    )


def device_bytes(
    memory: DeviceMemory, held: Held, *, cpu: Number, resident: Number, streams: BoolArray | bool
) -> FloatArray:
    """Give the larger of the two peaks in the passes and the one at the optimizer's step, for one or many shares."""
    states = memory.states + held.weights + memory.gradients - cpu * memory.drained + resident * memory.optimizer
    in_passes = memory.passes + held.kept + resident * memory.beside + max(memory.loss, memory.working + held.again)
    at_step = resident * memory.step + np.where(streams, memory.stream, 0.0)
    return np.asarray(states + np.maximum(in_passes, at_step))
