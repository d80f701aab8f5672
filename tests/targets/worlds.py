"""Worlds of processes on one processor, which run many workloads one after another."""

import os
import pickle
import socket
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing

from meshwright.planner.ledger import Workload
from meshwright.runtime.report import Report
from meshwright.runtime.world import run_here

STEPS = 3


def reports_of(workloads: Mapping[str, Workload], folder: Path) -> dict[str, Report]:
    """Run workloads of the same number of processes; give the report of each."""
    (size,) = {workload.layout.world_size for workload in workloads.values()}
    run_world(size, _run_all, (dict(workloads), folder / "reports"))
    reports: dict[str, Report] = pickle.loads((folder / "reports").read_bytes())
    return reports


def run_world(size: int, job: Callable[[Any], None], argument: object) -> None:
    """Run a job in so many processes of one world. Raises where it fails in any of them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.start_processes(_process, args=(size, port, job, argument), nprocs=size, start_method="fork")


def _process(rank: int, size: int, port: int, job: Callable[[Any], None], argument: object) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    warnings.simplefilter("default")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    job(argument)
    dist.destroy_process_group()


def _run_all(job: tuple[Mapping[str, Workload], Path]) -> None:
    workloads, file = job
    reports = {
        name: run_here(workload, steps=STEPS, device=torch.device("cpu"), compare=True)
        for name, workload in workloads.items()
    }
    if dist.get_rank() == 0:
        file.write_bytes(pickle.dumps(reports))
