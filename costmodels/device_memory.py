"""Peak memory of a rank, by cause, and what three who count it see.

The peak is at one of two moments:

    backward   parameters + gradients + master weights + moments                     what is always there
               + workspace                                                           of matrix libraries
               + layers x activations of a layer x micro-batches in flight           the schedule says how many
               + the larger of the loss, on the last stage, and one layer's working set
               + what ZeRO-3 has gathered, and narrow copies of weights
    step       the same states + workspace + fp32 copies of 16-bit gradients
               + copies of master weights that are kept in halves                    workspace too

The first step's backward pass runs before the moments are allocated. Then

    allocated    the larger of the two                            torch.cuda.max_memory_allocated
    reserved     that x (1 + slack)                               torch.cuda.max_memory_reserved
    nvidia_smi   reserved + context + loaded kernels + communicators x groups of ranks

where a DeepSpeed step's flat copies don't fit into the blocks that activations leave, and are reserved beside them.
Each is of the rank of which it is the most, so that a rank that reserves the most need not allocate the most.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.backward_peak import backward_parts
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.prediction import MemoryPrediction, Reading
from meshwright.costmodels.sharding import expert_data_group
from meshwright.costmodels.split_weights import weaving_bytes
from meshwright.costmodels.stage_table import StageTable
from meshwright.costmodels.state import stage_parameters, state_bytes

STEADY = Reading()


def peak_memory(job: Job, layouts: LayoutTable, stages: StageTable, *, reading: Reading = STEADY) -> MemoryPrediction:
    """Predict the peak memory of each layout, given its distinct stages.

    The peak is in the backward pass, at the loss beside the logits or in a layer beside its working set; or, where
    little else is kept, at the optimizer's step.
    """
    memory = stage_memory(job, layouts, stages, first_step=reading.first_step)
    eligible = stages.last if reading.last_stage else stages.multiplicity > 0
    worst = np.argmax(np.where(eligible, np.maximum(memory.backward_bytes, memory.step_bytes), -1.0), axis=1)
    rows = np.arange(len(layouts))
    stepping = memory.step_bytes > memory.backward_bytes
    breakdown = {
        name: np.where(stepping, memory.states.get(name, 0.0), value)[rows, worst]
        for name, value in memory.backward.items()
    }
    held_bytes = np.where(eligible, memory.held_bytes, 0.0).max(axis=1)
    return MemoryPrediction(
        breakdown=breakdown,
        reserved_bytes=_reserved_bytes(job, held_bytes),
        nvidia_smi_bytes=nvidia_smi_bytes(job, layouts, held_bytes[:, np.newaxis])[:, 0],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """What a rank of each distinct stage holds, [layouts, stages].

    states, backward: by cause, what is always there, and what is there at the peak of the backward pass.
    held_bytes: at most what the allocator's blocks have to have room for.
    """

    states: Mapping[str, FloatArray]
    backward: Mapping[str, FloatArray]
    held_bytes: FloatArray

    @property
    def backward_bytes(self) -> FloatArray:
        """Bytes at the peak of the backward pass."""
        return np.asarray(sum(self.backward.values()))

    @property
    def step_bytes(self) -> FloatArray:
        """Bytes while the optimizer steps."""
        return np.asarray(sum(self.states.values()))


def stage_memory(job: Job, layouts: LayoutTable, stages: StageTable, *, first_step: bool = False) -> StageMemory:
    """Give what each distinct stage holds, in the first step or in any other."""
    parameters = stage_parameters(job, layouts, stages)
    states = state_bytes(job, layouts, parameters)
    states["workspace"] = np.full(stages.index.shape, float(job.cluster.device.calibration.workspace))
    backward = states | backward_parts(job, layouts, stages, parameters)
    backward["step_gradients"] = np.zeros(stages.index.shape)
    states["workspace"] = states["workspace"] + weaving_bytes(job, layouts, stages)
    if first_step:
        backward["moments"] = np.zeros(stages.index.shape)
    flat = (layouts.zero_stage >= 1) & job.stack.flat_optimizer
    beside = np.where(flat[:, np.newaxis], states["step_gradients"], 0.0)
    held_bytes = np.maximum(sum(backward.values()) + beside, sum(states.values()))
    return StageMemory(states=states, backward=backward, held_bytes=held_bytes)


def _reserved_bytes(job: Job, held_bytes: FloatArray) -> FloatArray:
    return held_bytes * (1.0 + job.stack.allocator_slack)


def nvidia_smi_bytes(job: Job, layouts: LayoutTable, held_bytes: FloatArray) -> FloatArray:
    """Give what nvidia-smi shows of a rank, given the bytes that its allocator holds, [layouts, stages]."""
    return _reserved_bytes(job, held_bytes) + outside_bytes(job, layouts)[:, np.newaxis]


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
        layouts.ulysses_parallel,
        np.where(layouts.ulysses_parallel > 1, layouts.context_parallel // layouts.ulysses_parallel, 1),
        layouts.pipeline_parallel,
        layouts.data_parallel,
        layouts.expert_parallel,
        np.where(layouts.expert_parallel > 1, expert_data_group(layouts).size, 1),
    )
    smaller = np.sum([(size > 1) & (size < world) for size in sizes], axis=0)
    return np.asarray(smaller + (world > 1), dtype=float)
