"""Keeping the replicas equal: gradient reduction, parameter gathers and the optimizer step of each stage.

ZeRO 0 all-reduces gradients once a step; 1 reduce-scatters them and all-gathers the new parameters; 2 must
reduce-scatter after each micro-batch, since it keeps no whole gradients; 3 also gathers a layer's parameters before
each forward and backward pass (Rajbhandari et al. 2020, section 7).

What can hide: a reduction started by bucket runs beside what is left of the last micro-batch's backward pass, all but
the last layer's bucket; a parameter gather beside the forward pass, all but the first layer's. Without overlap a
reduction starts when a stage's last backward pass ends, and the first stage's ends last, so that the others' hide
behind it: stage s is done s passes of a chunk earlier, except in zero-bubble schedules, whose stages all end at once.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.collectives import Group, all_gather_s, all_reduce_s, reduce_scatter_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable
from meshwright.costmodels.overlap import exposed_s
from meshwright.costmodels.schedule import ZERO_BUBBLE_2P, ZERO_BUBBLE_H1
from meshwright.costmodels.stage_table import StageTable
from meshwright.costmodels.state import (
    MASTER_BYTES,
    MOMENTS_BYTES,
    PARAMETER_BYTES,
    StageParameters,
    data_group,
    expert_data_group,
    expert_shard_group,
    padded_vocabulary,
    shard_group,
    shards,
)

ZERO_BUBBLE = (ZERO_BUBBLE_H1, ZERO_BUBBLE_2P)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageWork:
    """What a stage computes in a step, [layouts, stages]: seconds of one micro-batch forward and backward."""

    forward_s: FloatArray
    backward_s: FloatArray


def _widened(group: Group) -> Group:
    return Group(size=group.size[:, np.newaxis], stride=group.stride[:, np.newaxis])


def gradient_reduction_s(job: Job, layouts: LayoutTable, parameters: StageParameters) -> FloatArray:
    """Give the seconds of one reduction of all gradients of each distinct stage, [layouts, stages]."""
    total = np.zeros(parameters.dense.shape)
    for count, whole, shard in (
        (parameters.dense, data_group(layouts), shard_group(layouts)),
        (parameters.experts, expert_data_group(layouts), expert_shard_group(layouts)),
    ):
        whole_bytes = job.stack.reduce_bytes * count
        replicas = Group(size=whole.size // np.maximum(shard.size, 1), stride=whole.stride * shard.size)
        within_s = reduce_scatter_s(job.cluster, _widened(shard), whole_bytes)
        across_s = all_reduce_s(job.cluster, _widened(replicas), whole_bytes / shard.size[:, np.newaxis])
        sharded_s = within_s + across_s
        reduced_s = all_reduce_s(job.cluster, _widened(whole), whole_bytes)
        seconds = np.where(layouts.zero_stage[:, np.newaxis] >= 1, sharded_s, reduced_s)
        total = total + np.where(count > 0, seconds, 0.0)
    return total


def parameter_gather_s(job: Job, layouts: LayoutTable, parameters: StageParameters) -> FloatArray:
    """Give the seconds of one all-gather of each distinct stage's parameters, [layouts, stages]; 0 without ZeRO."""
    total = np.zeros(parameters.dense.shape)
    for count, shard in ((parameters.dense, shard_group(layouts)), (parameters.experts, expert_shard_group(layouts))):
        seconds = all_gather_s(job.cluster, _widened(shard), PARAMETER_BYTES * count)
        total = total + np.where(count > 0, seconds, 0.0)
    return np.where(layouts.zero_stage[:, np.newaxis] >= 1, total, 0.0)


def _message_latencies_s(job: Job, layouts: LayoutTable, layers: IntArray) -> FloatArray:
    """Give the latency of all messages into which ZeRO-3 cuts a stage's layers, but for the one counted already."""
    empty = all_gather_s(job.cluster, _widened(shard_group(layouts)), np.zeros((len(layouts), 1)))
    return empty * (layers * job.stack.gathers_per_layer - 1)


def exposed_communication_s(
    job: Job,
    layouts: LayoutTable,
    stages: StageTable,
    parameters: StageParameters,
    work: StageWork,
    *,
    total: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Give the exposed seconds of gradient reductions and of parameter gathers in a step, [layouts, stages].

    Args:
        job: the job.
        layouts: the layouts.
        stages: their distinct stages.
        parameters: what each holds.
        work: what each computes.
        total: micro-batches of a step, [layouts].

    """
    contention = job.cluster.device.calibration.contention
    chunks = layouts.virtual_pipeline[:, np.newaxis]
    zero_bubble = np.isin(layouts.schedule, ZERO_BUBBLE)[:, np.newaxis]
    layers = np.maximum(stages.layers.sum(axis=2), 1)
    stage_3 = layouts.zero_stage[:, np.newaxis] == 3
    slowed = np.where(stage_3, 1.0 / job.stack.gather_efficiency, 1.0)
    latencies_s = np.where(stage_3, _message_latencies_s(job, layouts, layers), 0.0)
    reduction_s = slowed * gradient_reduction_s(job, layouts, parameters) + latencies_s
    gather_s = slowed * parameter_gather_s(job, layouts, parameters) + latencies_s
    every_micro_batch = layouts.zero_stage[:, np.newaxis] >= 2
    if not job.stack.reshard_in_pipeline:
        in_pipeline = layouts.pipeline_parallel[:, np.newaxis] > 1
        stage_3, every_micro_batch = stage_3 & ~in_pipeline, every_micro_batch & ~in_pipeline
    repeats = np.where(every_micro_batch, total[:, np.newaxis], 1.0)
    backward_messages_s = reduction_s + np.where(stage_3, gather_s, 0.0)
    if job.stack.overlap_gradients:
        room_s = work.backward_s * (1.0 - 1.0 / layers)
        exposed = exposed_s(backward_messages_s, room_s, contention, tail_s=backward_messages_s / layers)
    else:
        finished_early_s = np.where(zero_bubble, 0.0, stages.index * work.backward_s / chunks)
        exposed = np.where(every_micro_batch, backward_messages_s, np.maximum(reduction_s - finished_early_s, 0.0))
    gradients_s = repeats * exposed
    gathers = np.where(stage_3, total[:, np.newaxis], 1.0)
    if job.stack.overlap_parameters:
        room_s = work.forward_s * (1.0 - 1.0 / layers)
        exposed = exposed_s(gather_s, room_s, contention, tail_s=gather_s / layers)
    else:
        exposed = gather_s
    return gradients_s, gathers * exposed


def tied_embedding_s(job: Job, layouts: LayoutTable) -> FloatArray:
    """Give the seconds of summing a tied embedding's gradient over the first and the last stage, [layouts]."""
    stride = layouts.tensor_parallel * layouts.context_parallel * layouts.data_parallel
    pair = Group(
        size=np.minimum(layouts.pipeline_parallel, 2), stride=stride * np.maximum(layouts.pipeline_parallel - 1, 1)
    )
    word_table = job.model.hidden * padded_vocabulary(job, layouts) / layouts.tensor_parallel
    seconds = all_reduce_s(job.cluster, pair, job.stack.gradient_bytes * word_table)
    return seconds if job.model.tied_embeddings else np.zeros(len(layouts))


def optimizer_s(job: Job, layouts: LayoutTable, parameters: StageParameters) -> FloatArray:
    """Give the seconds of the optimizer step of each distinct stage, [layouts, stages].

    Gradients are read for the norm, and scaled; the update reads the gradient, reads and writes moments and master
    weights, and writes the parameter: all bound by memory bandwidth.
    """
    device = job.cluster.device
    gradient_bytes = job.stack.gradient_bytes
    update_bytes = gradient_bytes + 2 * (MOMENTS_BYTES + MASTER_BYTES) + PARAMETER_BYTES
    clip_bytes = 3 * gradient_bytes
    total = np.zeros(parameters.dense.shape)
    for count, group in ((parameters.dense, shard_group(layouts)), (parameters.experts, expert_shard_group(layouts))):
        total = total + count * (update_bytes + clip_bytes) / shards(layouts, group, from_stage=1)
    return total / (device.calibration.streaming * device.memory_bandwidth_bytes_per_s)
