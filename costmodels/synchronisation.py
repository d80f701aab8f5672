"""Keeping the replicas equal: gradient reduction, parameter gathers and the optimizer step of each stage.

What can hide of the messages of state_messages.py, which are of a layer or a bucket of layers each: gathers run beside
the forward pass, all but the first one, which nothing precedes; reductions, and what is gathered again, beside the
backward pass, all but the last one. With L equal buckets of c seconds of compute and m of messages,

    t = m + (L - 1) max(m, c + (1 - 1 / contention) m) + c

What is sent once a step runs beside the first forward or the last backward pass. Without overlap a reduction starts
when a stage's last backward pass ends, and the first stage's ends last, so that the others' hide behind it: stage s is
done s passes of a chunk earlier, except in zero-bubble schedules, whose stages all end at once.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from meshwright.costmodels.collectives import Group, all_reduce_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.overlap import exposed_s
from meshwright.costmodels.packing import packing_s
from meshwright.costmodels.parameter_bytes import (
    MASTER_BYTES,
    MOMENTS_BYTES,
    PARAMETER_BYTES,
    gradient_bytes,
    reduced_bytes,
)
from meshwright.costmodels.schedule.codes import DUAL_PIPE, FOLDED, SPLIT_BACKWARD
from meshwright.costmodels.sharding import dense_sharding, expert_sharding
from meshwright.costmodels.stage_table import StageTable
from meshwright.costmodels.state import (
    StageParameters,
    local_vocabulary,
)
from meshwright.costmodels.state_messages import StateMessages, state_messages
from meshwright.costmodels.strides import pipeline_stride


@dataclass(frozen=True, slots=True, kw_only=True)
class StageWork:
    """What a stage computes in a step, [layouts, stages]: seconds of one micro-batch forward and backward."""

    forward_s: FloatArray
    backward_s: FloatArray

    def scaled(self, share: FloatArray) -> Self:
        """Give a share of it, [layouts]."""
        of_stages = share[:, np.newaxis]
        return replace(self, forward_s=self.forward_s * of_stages, backward_s=self.backward_s * of_stages)


def exposed_communication_s(
    job: Job,
    layouts: LayoutTable,
    stages: StageTable,
    parameters: StageParameters,
    work: StageWork,
    *,
    beside: StageWork,
    total: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Give the exposed seconds of gradient reductions and of parameter gathers in a step, [layouts, stages].

    Args:
        job: the job.
        layouts: the layouts.
        stages: their distinct stages.
        parameters: what each holds.
        work: what each computes.
        beside: what of that messages can run beside.
        total: micro-batches of a step, [layouts].

    """
    layers = np.maximum(stages.layers.sum(axis=2), 1)
    messages = state_messages(job, layouts, parameters, layers)
    repeats = total[:, np.newaxis] - 1.0
    backward_s = messages.reduction_s + messages.backward_gather_s
    if job.stack.overlap_gradients:
        backward = _Beside(job=job, compute_s=beside.backward_s, buckets=messages.buckets)
        backward_exposed_s = repeats * backward.exposed_s(backward_s)
        backward_exposed_s += backward.exposed_s(backward_s + messages.step_reduction_s)
    else:
        early_s = _finished_early_s(layouts, stages, work)
        backward_exposed_s = total[:, np.newaxis] * backward_s + np.maximum(messages.step_reduction_s - early_s, 0.0)
    forward_s = messages.forward_gather_s
    if job.stack.overlap_parameters:
        forward = _Beside(job=job, compute_s=beside.forward_s, buckets=messages.buckets)
        forward_exposed_s = repeats * forward.exposed_s(forward_s)
        forward_exposed_s += forward.exposed_s(forward_s + messages.step_gather_s)
    else:
        forward_exposed_s = total[:, np.newaxis] * forward_s + messages.step_gather_s
    regathers_s = backward_exposed_s * _gathered_share(messages, total)
    packed_s, unpacked_s = packing_s(job, layouts, parameters, total=total)
    return backward_exposed_s - regathers_s + packed_s, forward_exposed_s + regathers_s + unpacked_s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Beside:
    """One pass of a stage, beside which messages of a bucket each run."""

    job: Job
    compute_s: FloatArray
    buckets: FloatArray

    def exposed_s(self, message_s: FloatArray) -> FloatArray:
        """Give by how much messages lengthen the pass; the first or last bucket has nothing to run beside."""
        return exposed_s(
            message_s,
            self.compute_s * (1.0 - 1.0 / self.buckets),
            self.job.cluster.device.calibration.contention,
            tail_s=message_s / self.buckets,
        )


def _finished_early_s(layouts: LayoutTable, stages: StageTable, work: StageWork) -> FloatArray:
    """Give how long before the first stage each stage ends its last backward pass, [layouts, stages]."""
    early_s = stages.index * work.backward_s / layouts.virtual_pipeline[:, np.newaxis]
    return np.where(np.isin(layouts.schedule, SPLIT_BACKWARD)[:, np.newaxis], 0.0, early_s)


def _gathered_share(messages: StateMessages, total: FloatArray) -> FloatArray:
    """Give which share of the messages of the backward passes are gathers."""
    gathers_s = total[:, np.newaxis] * messages.backward_gather_s
    reductions_s = total[:, np.newaxis] * messages.reduction_s + messages.step_reduction_s
    return np.divide(gathers_s, gathers_s + reductions_s, out=np.zeros(gathers_s.shape), where=gathers_s > 0)


def tied_embedding_s(job: Job, layouts: LayoutTable) -> FloatArray:
    """Give the seconds of summing a tied embedding's gradient over the first and the last stage, [layouts].

    The two are in one instance of a tier where all stages are, as a pair would be that is half as far apart as the
    pipeline is long. Schedules that fold or mirror the model have both ends on one stage, vocabulary parallelism has
    both everywhere.
    """
    pair = Group(
        size=np.minimum(layouts.pipeline_parallel, 2), stride=pipeline_stride(layouts) * layouts.pipeline_parallel / 2
    )
    word_table = job.model.hidden * local_vocabulary(job, layouts)
    seconds = all_reduce_s(job.cluster, pair, gradient_bytes(job) * word_table)
    apart = ~np.isin(layouts.schedule, (*FOLDED, DUAL_PIPE)) & (layouts.vocabulary_parallel == 0)
    return np.where(apart & job.model.tied_embeddings, seconds, 0.0)


def mirrored_copies_s(job: Job, layouts: LayoutTable, parameters: StageParameters) -> FloatArray:
    """Give the seconds of summing gradients over DualPipe's two copies of the parameters, [layouts, stages].

    Stages s and P - 1 - s have the same chunks; their ranks sum what ZeRO leaves each of them.
    """
    pair = Group(size=np.full((len(layouts), 1), 2), stride=pipeline_stride(layouts)[:, np.newaxis])
    count = parameters.dense / dense_sharding(job, layouts).optimizer
    count = count + parameters.experts / expert_sharding(job, layouts).optimizer
    seconds = all_reduce_s(job.cluster, pair, reduced_bytes(job) * count)
    return np.where((layouts.schedule == DUAL_PIPE)[:, np.newaxis], seconds, 0.0)


def optimizer_s(job: Job, layouts: LayoutTable, parameters: StageParameters) -> FloatArray:
    """Give the seconds of the optimizer step of each distinct stage, [layouts, stages].

    Gradients are read for the norm, and scaled; the update reads the gradient, reads and writes moments and master
    weights, and writes the parameter: all bound by memory bandwidth.
    """
    device = job.cluster.device
    each_bytes = gradient_bytes(job)
    update_bytes = each_bytes + 2 * (MOMENTS_BYTES + MASTER_BYTES) + PARAMETER_BYTES
    clip_bytes = 3 * each_bytes
    total = np.zeros(parameters.dense.shape)
    for count, sharding in (
        (parameters.dense, dense_sharding(job, layouts)),
        (parameters.experts, expert_sharding(job, layouts)),
    ):
        total = total + count * (update_bytes + clip_bytes) / (sharding.optimizer * job.optimizer_parties)
    return total / (device.calibration.streaming * device.memory_bandwidth_bytes_per_s)
