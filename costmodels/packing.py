"""Copies between parameters and the buffers that collectives gather into and reduce from.

A collective of many parameters works on one buffer. Where a parameter is no part of it, what was gathered is copied
out, and gradients are copied in: bound by memory bandwidth, and on the stream that computes, so that nothing runs
beside them. Of N parameters that products read as p bytes each (2, in fp32 training 4), and gradients reduced as r,

    out of a gather       (p + p) N bytes
    into a reduction      (p + r) N bytes

as often as shards are gathered and reduced by state_messages.py. Hybrid shards add up the reduction's output over their
copies, where it lies. Sums over whole replicas aren't counted.

PyTorch's fully_shard does both: foreach_all_gather_copy_out and foreach_reduce_scatter_copy_in work on the current
stream (torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py), while shards are copied into the gather on one of
their own. So does DeepSpeed's ZeRO-3 (torch.cat of AllGatherCoalescedHandle, the bucket of stage3.py). Parameters of
FSDP's flat one are views of it, but their gradients are concatenated. Those of Megatron-Core lie in the buffers, and so
do their gradients.
"""

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable
from meshwright.costmodels.parameter_bytes import computed_bytes, reduced_bytes
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
    read_bytes, sent_bytes = computed_bytes(job), reduced_bytes(job)
    into, out = read_bytes + sent_bytes, 2 * read_bytes
    packed, unpacked = np.zeros(parameters.dense.shape), np.zeros(parameters.dense.shape)
    micro_batches = total[:, np.newaxis]
    for count, sharding in (
        (parameters.dense, dense_sharding(job, layouts)),
        (parameters.experts, expert_sharding(job, layouts)),
    ):
        passes = 1.0 + (sharding.backward > 1)
        packed = packed + into * count * _times(sharding.gradients, sharding.optimizer, micro_batches)
        unpacked = unpacked + out * count * _times(sharding.parameters, sharding.optimizer, micro_batches * passes)
    device = job.cluster.device
    bytes_per_s = device.calibration.streaming * device.memory_bandwidth_bytes_per_s
    return packed * job.stack.packs_gradients / bytes_per_s, unpacked * job.stack.unpacks_parameters / bytes_per_s


def _times(shard: IntArray, optimizer: IntArray, within_step: FloatArray) -> FloatArray:
    """Give how often a step sends what is sharded so: `within_step` times, or else once where the optimizer is."""
    return np.where(shard > 1, within_step, (optimizer > 1) * 1.0)
