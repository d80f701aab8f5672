"""The processes of one run: they train together, and the first one gets what all of them measured."""

import os
from typing import Any

import torch
import torch.distributed as dist

from meshwright.catalog.errors import MeshwrightError
from meshwright.planner.ledger.ledger import ledger_of
from meshwright.planner.ledger.workload import Workload
from meshwright.runtime.launch import Measured, launch
from meshwright.runtime.reference import reference_losses
from meshwright.runtime.report import Report


def run_in_world(workload: Workload, *, steps: int, device: str, compare: bool) -> Report | None:
    """Train as the process that torchrun's environment says; give the report to the first process, None to others.

    device: "auto", "cpu" or "cuda". compare: the first process trains the same model alone, too.
    Raises MeshwrightError where there is no GPU though one was asked for.
    """
    where = _device(device)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        return run_here(workload, steps=steps, device=where, compare=compare)
    finally:
        dist.destroy_process_group()


def run_here(workload: Workload, *, steps: int, device: torch.device, compare: bool) -> Report | None:
    """Train in an initialised world."""
    rank = dist.get_rank()
    measured = launch(workload, rank=rank, steps=steps, device=device)
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, measured)
    if rank:
        return None
    alone = reference_losses(workload, steps=steps, device=device) if compare else None
    ranks: list[Measured] = everyone
    return Report(
        workload=workload,
        expected=ledger_of(workload),
        measured=tuple(ranks),
        losses_alone=alone,
        on_processor=device.type == "cpu",
    )


def _device(name: str) -> torch.device:
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise MeshwrightError("PyTorch sees no GPU on this machine", hint="train on its processor with --device cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
