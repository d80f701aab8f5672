"""Peak memory of a rank, by cause, and what three who count it see.

The peak is at one of two moments:

    backward   parameters + gradients + master weights + moments                     what is always there
               + workspace                                                           of matrix libraries
               + layers x activations of a layer x micro-batches in flight           the schedule says how many
               + the larger of the loss, on the last stage, and one layer's working set
               + what ZeRO-3 has gathered, and narrow copies of weights
    step       the same states + workspace + fp32 copies of 16-bit gradients

The first step's backward pass runs before the moments are allocated. Then

    allocated    the larger of the two                            torch.cuda.max_memory_allocated
    reserved     that x (1 + slack)                               torch.cuda.max_memory_reserved
    nvidia_smi   reserved + context + loaded kernels + communicators x groups of ranks

where a DeepSpeed step's flat copies don't fit into the blocks that activations leave, and are reserved beside them.
Each is of the rank of which it is the most, so that a rank that reserves the most need not allocate the most.
"""

import numpy as np

from meshwright.costmodels.backward_peak import backward_parts
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.prediction import MemoryPrediction, Reading
from meshwright.costmodels.sharding import expert_data_group
from meshwright.costmodels.stage_table import StageTable
from meshwright.costmodels.state import stage_parameters, state_bytes

STEADY = Reading()


def peak_memory(job: Job, layouts: LayoutTable, stages: StageTable, *, reading: Reading = STEADY) -> MemoryPrediction:
    """Predict the peak memory of each layout, given its distinct stages.

    The peak is in the backward pass, at the loss beside the logits or in a layer beside its working set; or, where
    little else is kept, at the optimizer's step.
    """
    parameters = stage_parameters(job, layouts, stages)
    states = state_bytes(job, layouts, parameters)
    states["workspace"] = np.full(stages.index.shape, float(job.cluster.device.calibration.workspace))
    backward = states | backward_parts(job, layouts, stages, parameters)
    backward["step_gradients"] = np.zeros(stages.index.shape)
    if reading.first_step:
        backward["moments"] = np.zeros(stages.index.shape)
    backward_bytes, step_bytes = sum(backward.values()), sum(states.values())
    stepping = step_bytes > backward_bytes
    eligible = stages.last if reading.last_stage else stages.multiplicity > 0
    rows, allocated_bytes = np.arange(len(layouts)), np.maximum(backward_bytes, step_bytes)
    worst = np.argmax(np.where(eligible, allocated_bytes, -1.0), axis=1)
    breakdown = {
        name: np.where(stepping, states.get(name, 0.0), value)[rows, worst] for name, value in backward.items()
    }
    flat = (layouts.zero_stage >= 1) & job.stack.flat_optimizer
    beside = np.where(flat[:, np.newaxis], states["step_gradients"], 0.0)
    held_bytes = np.maximum(backward_bytes + beside, step_bytes)
    reserved = np.where(eligible, held_bytes, 0.0).max(axis=1) * (1.0 + job.stack.allocator_slack)
    return MemoryPrediction(
        breakdown=breakdown,
        reserved_bytes=reserved,
        nvidia_smi_bytes=reserved + outside_bytes(job, layouts),
    )


def outside_bytes(job: Job, layouts: LayoutTable) -> FloatArray:
    """Give what a process holds outside the allocator, [layouts]."""
    calibration = job.cluster.device.calibration
    return calibration.context + job.stack.loaded_kernels + calibration.communicator * _communicators(layouts)


def _communicators(layouts: LayoutTable) -> FloatArray:
    """Count the groups that a rank communicates in: all ranks, and each smaller axis of more than one, [layouts]."""
    world = layouts.tensor_parallel * layouts.context_parallel * layouts.pipeline_parallel * layouts.data_parallel
    sizes = (
        layouts.tensor_parallel,
        layouts.context_parallel,
        layouts.pipeline_parallel,
        layouts.data_parallel,
        layouts.expert_parallel,
        np.where(layouts.expert_parallel > 1, expert_data_group(layouts).size, 1),
    )
    smaller = np.sum([(size > 1) & (size < world) for size in sizes], axis=0)
    return np.asarray(smaller + (world > 1), dtype=float)
