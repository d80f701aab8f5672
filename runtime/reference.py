"""The same training in one process, without any parallelism: what every layout's losses are held against."""

from dataclasses import replace

import torch

from meshwright.costmodels.layout import Layout
from meshwright.planner.ledger.workload import Workload
from meshwright.runtime.parallelize import filled_parts
from meshwright.runtime.training import Training


def reference_losses(workload: Workload, *, steps: int, device: torch.device) -> tuple[float, ...]:
    """Give the loss of each step of a workload's model and batches in this process alone."""
    alone = replace(
        workload,
        layout=Layout(micro_batch=workload.layout.micro_batch),
        stages=((tuple(range(len(workload.model.layers))),),),
        micro_batches=workload.micro_batches * workload.layout.data_parallel,
    )
    parts = filled_parts(alone, alone.rank(0), None, device=device)
    training = Training(alone, alone.rank(0), None, parts, device=device)
    losses = [training.step(number) for number in range(steps)]
    return tuple(loss for loss in losses if loss is not None)
