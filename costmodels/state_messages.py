"""What ranks that share a state send one another, by the shards of sharding.py.

Of B bytes of parameters or gradients before sharding, with s = zero_shard, g, p and b the gradient, parameter and
backward shards, and c the copies:

    each micro-batch   forward      all-gather of B over p
                       backward     all-gather of B over b; reduce-scatter of B over g
    each step          first        all-gather of B / p over s / p: what the optimizer made anew
                       last         reduce-scatter of B / g over s / g, then all-reduce of B / s over c / s

where a group of one has nothing to send. So ZeRO-1 reduce-scatters and all-gathers once a step, ZeRO-2 reduces after
each micro-batch, since it keeps no whole gradients, and ZeRO-3 gathers before each pass (Rajbhandari et al. 2020,
section 7); hybrid shards add up their copies once a step (the two hops of MiCS, arXiv 2205.00119, section 3.4).

ZeRO++ (arXiv 2306.10209) gathers parameters as 8-bit values (qwZ), and reduces gradients as 4-bit values by an
all-to-all inside each node and one between nodes (qgZ): 4-bit values can't be added up on their way around a ring.
Conversions read one format and write the other, bound by memory bandwidth.

Where ZeRO-3 needs one layer after the other, messages are a layer's (or the parts into which the stack cuts it); else
those that the stack starts beside compute are of buckets of layers, of 40 million parameters and a million a rank as
Megatron-Core fills them by default, and those that it doesn't are one.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.collectives import Group, all_gather_s, all_reduce_s, all_to_all_s, reduce_scatter_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable
from meshwright.costmodels.parameter_bytes import computed_bytes, gathered_bytes, reduced_bytes
from meshwright.costmodels.sharding import Sharding, dense_sharding, expert_sharding
from meshwright.costmodels.state import StageParameters

QUANTISED_GRADIENT_BYTES = 0.5
BUCKET_PARAMETERS = 40e6
BUCKET_PARAMETERS_A_RANK = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class StateMessages:
    """Seconds of messages alone, arrays of shape [layouts, stages]: of each micro-batch, and once a step.

    buckets: into how many parts, one after another, the stage is cut by what runs beside its passes.
    """

    buckets: FloatArray
    forward_gather_s: FloatArray
    backward_gather_s: FloatArray
    reduction_s: FloatArray
    step_gather_s: FloatArray
    step_reduction_s: FloatArray


def state_messages(job: Job, layouts: LayoutTable, parameters: StageParameters, layers: IntArray) -> StateMessages:
    """Give the messages of each distinct stage, which has so many layers, [layouts, stages]."""
    dense, experts = dense_sharding(job, layouts), expert_sharding(job, layouts)
    buckets = _buckets(parameters.dense + parameters.experts, dense, layers)
    totals = _messages_s(job, dense, parameters.dense, layers, buckets)
    if parameters.experts.any():
        of_experts = _messages_s(job, experts, parameters.experts, layers, buckets)
        totals = {name: seconds + of_experts[name] for name, seconds in totals.items()}
    return StateMessages(buckets=buckets, **totals)


def _buckets(count: FloatArray, sharding: Sharding, layers: IntArray) -> FloatArray:
    filled = count / np.maximum(BUCKET_PARAMETERS, BUCKET_PARAMETERS_A_RANK * sharding.copies)
    return np.where(sharding.parameters > 1, layers, np.clip(filled, 1.0, layers))


def _messages_s(
    job: Job, sharding: Sharding, count: FloatArray, layers: IntArray, buckets: FloatArray
) -> dict[str, FloatArray]:
    by_layer = sharding.parameters > 1
    finest = layers * job.stack.gathers_per_layer
    gathers = np.where(by_layer, finest, buckets if job.stack.overlap_parameters else 1)
    reductions = np.where(by_layer, finest, buckets if job.stack.overlap_gradients else 1)
    one = np.ones_like(sharding.optimizer)
    forward_s = _gathered_s(job, sharding.between(one, sharding.parameters), count, gathers)
    backward_s = forward_s
    if np.any(sharding.backward != sharding.parameters):
        backward_s = _gathered_s(job, sharding.between(one, sharding.backward), count, gathers)
    fresh = sharding.between(sharding.parameters, sharding.optimizer)
    summed = sharding.between(sharding.gradients, sharding.optimizer)
    replicas = sharding.between(sharding.optimizer, sharding.copies)
    step_reduction_s = _reduced_s(job, summed, count / sharding.gradients, reductions)
    step_reduction_s = step_reduction_s + _added_s(job, replicas, count / sharding.optimizer, reductions)
    slowed = np.where(by_layer, 1.0 / job.stack.gather_efficiency, 1.0)
    return {
        "forward_gather_s": slowed * forward_s,
        "backward_gather_s": slowed * backward_s,
        "reduction_s": slowed * _reduced_s(job, sharding.between(one, sharding.gradients), count, reductions),
        "step_gather_s": slowed * _gathered_s(job, fresh, count / sharding.parameters, gathers),
        "step_reduction_s": slowed * step_reduction_s,
    }


def _gathered_s(job: Job, group: Group, count: FloatArray, pieces: FloatArray) -> FloatArray:
    """Give the seconds of gathering `count` parameters."""
    if group.size.max(initial=1) == 1:
        return np.zeros(count.shape)
    sent_bytes, read_bytes = gathered_bytes(job), computed_bytes(job)
    seconds = pieces * all_gather_s(job.cluster, group, sent_bytes * count / pieces)
    if sent_bytes < read_bytes:
        converted_bytes = (read_bytes + sent_bytes) * count * (1.0 + 1.0 / group.size)
        seconds = seconds + np.where(group.size > 1, converted_bytes, 0.0) / _streaming_bytes_per_s(job)
    return np.where(count > 0, seconds, 0.0)


def _reduced_s(job: Job, group: Group, count: FloatArray, pieces: FloatArray) -> FloatArray:
    """Give the seconds of reducing `count` gradients to a shard each."""
    if group.size.max(initial=1) == 1:
        return np.zeros(count.shape)
    if job.stack.quantised_reduction:
        inside = np.clip(job.cluster.domain_devices // group.stride, 1, group.size)
        seconds = _exchanged_s(job, Group(size=inside, stride=group.stride), count, pieces)
        outside = Group(size=group.size // inside, stride=group.stride * inside)
        seconds = seconds + _exchanged_s(job, outside, count / inside, pieces)
    else:
        seconds = pieces * reduce_scatter_s(job.cluster, group, reduced_bytes(job) * count / pieces)
    return np.where(count > 0, seconds, 0.0)


def _exchanged_s(job: Job, group: Group, count: FloatArray, pieces: FloatArray) -> FloatArray:
    """Give the seconds of an all-to-all of `count` 4-bit gradients: converted, sent, and read back to be added up."""
    sent_s = pieces * all_to_all_s(job.cluster, group, QUANTISED_GRADIENT_BYTES * count / pieces)
    converted_bytes = (computed_bytes(job) + 2 * QUANTISED_GRADIENT_BYTES) * count
    return np.where(group.size > 1, sent_s + converted_bytes / _streaming_bytes_per_s(job), 0.0)


def _added_s(job: Job, group: Group, count: FloatArray, pieces: FloatArray) -> FloatArray:
    """Give the seconds of adding up `count` gradients over their copies."""
    if group.size.max(initial=1) == 1:
        return np.zeros(count.shape)
    seconds = pieces * all_reduce_s(job.cluster, group, reduced_bytes(job) * count / pieces)
    return np.where(count > 0, seconds, 0.0)


def _streaming_bytes_per_s(job: Job) -> float:
    device = job.cluster.device
    return device.calibration.streaming * device.memory_bandwidth_bytes_per_s
