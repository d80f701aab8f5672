"""Runs a workload on the processes that were started for it, and measures each rank."""

import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.autograd.graph import saved_tensors_hooks

from meshwright.planner.ledger.transfers import Transfer
from meshwright.planner.ledger.workload import Workload
from meshwright.runtime.meshes import meshes_of
from meshwright.runtime.meter import ActivationMeter, CollectiveMeter, local_bytes
from meshwright.runtime.parallelize import filled_parts
from meshwright.runtime.training import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one rank did.

    Bytes of parameters, gradients and moments are those between steps; activation_bytes are the most that forward
    passes kept for backward passes at once. transfers: the collectives of one step. losses: of each step, of this
    rank's tokens, where it has the head. step_time_s: the median of all steps but the first and the measured one.
    """

    rank: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    transfers: tuple[Transfer, ...]
    losses: tuple[float, ...] | None
    step_time_s: float


def launch(workload: Workload, *, rank: int, steps: int, device: torch.device) -> Measured:
    """Train for so many steps, at least 3, as one rank of an initialised world; the last one is measured."""
    # No launched module changes its inputs in place, which is what PyTorch warns of.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    meshes = meshes_of(workload, device.type)
    parts = filled_parts(workload, workload.rank(rank), meshes, device=device)
    training = Training(workload, workload.rank(rank), meshes, parts, device=device)
    losses, times = [], []
    for number in range(steps - 1):
        start_s = time.perf_counter()
        losses.append(training.step(number))
        times.append(time.perf_counter() - start_s)
    collectives, activations = CollectiveMeter(), ActivationMeter(part.module for part in parts)
    with collectives, saved_tensors_hooks(activations.pack, activations.unpack):
        loss = training.differentiate(steps - 1)
    losses.append(None if loss is None else float(loss))
    parameters = training.parameters()
    return Measured(
        rank=rank,
        parameter_bytes=local_bytes(parameters),
        gradient_bytes=local_bytes(each.grad for each in parameters if each.grad is not None),
        optimizer_bytes=local_bytes(training.moments()),
        activation_bytes=activations.peak_bytes,
        transfers=tuple(collectives.transfers),
        losses=None if loss is None else tuple(each for each in losses if each is not None),
        step_time_s=statistics.median(times[1:]),
    )


def mean_losses(measured: Sequence[Measured]) -> tuple[float, ...]:
    """Give the loss of each step, over the tokens of all ranks."""
    own = [each.losses for each in measured if each.losses is not None]
    return tuple(sum(step) / len(own) for step in zip(*own, strict=True))
