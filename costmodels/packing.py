"""Copies between parameters and the buffers that collectives gather into and reduce from.

A collective of many parameters works on one buffer. Where a parameter is no part of it, what was gathered is copied
out, and gradients are copied in: bound by memory bandwidth, and compute waits for both. Of N parameters of 16 bits, and
gradients reduced as r bytes each,

    out of a gather       (2 + 2) N bytes
    into a reduction      (2 + r) N bytes

as often as shards are gathered and reduced by state_messages.py; sums over whole replicas, and of hybrid shards over
their copies, aren't counted. PyTorch's fully_shard does both (split_with_sizes_copy and chunk_cat of
torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py), as does DeepSpeed's ZeRO-3 (torch.cat of
AllGatherCoalescedHandle, the bucket of stage3.py). Parameters of FSDP's flat one are views of it, but their gradients
are concatenated. Those of Megatron-Core lie in the buffers, and so do their gradients.
"""

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable
from meshwright.costmodels.parameter_bytes import PARAMETER_BYTES, reduced_bytes
from meshwright.costmodels.sharding import dense_sharding, expert_sharding
from meshwright.costmodels.state import StageParameters


def packing_s(
    job: Job, layouts: LayoutTable, parameters: StageParameters, *, total: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Give the seconds of a step in which gradients, and parameters, are copied, [layouts, stages].

    Args:
        job: the job.
        layouts: the layouts.
        parameters: what each stage holds.
        total: micro-batches of a step, [layouts].

    """
    packed, unpacked = np.zeros(parameters.dense.shape), np.zeros(parameters.dense.shape)
    micro_batches = total[:, np.newaxis]
    for count, sharding in (
        (parameters.dense, dense_sharding(job, layouts)),
        (parameters.experts, expert_sharding(job, layouts)),
    ):
        passes = 1.0 + (sharding.backward > 1)
        packed = packed + count * _times(sharding.gradients, sharding.optimizer, micro_batches)
        unpacked = unpacked + count * _times(sharding.parameters, sharding.optimizer, micro_batches * passes)
    device = job.cluster.device
    bytes_per_s = device.calibration.streaming * device.memory_bandwidth_bytes_per_s
    packed_bytes = (PARAMETER_BYTES + reduced_bytes(job)) * job.stack.packs_gradients
    unpacked_bytes = 2 * PARAMETER_BYTES * job.stack.unpacks_parameters
    return packed * packed_bytes / bytes_per_s, unpacked * unpacked_bytes / bytes_per_s


def _times(shard: IntArray, optimizer: IntArray, within_step: FloatArray) -> FloatArray:
    """Give how often a step sends what is sharded so: `within_step` times, or else once where the optimizer is."""
    return np.where(shard > 1, within_step, (optimizer > 1) * 1.0)
