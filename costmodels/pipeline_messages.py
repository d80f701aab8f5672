"""Messages between pipeline stages: activations forward, their gradients backward, and a shared vocabulary's."""

import numpy as np

from meshwright.costmodels.collectives import Group, all_gather_s, reduce_scatter_s, send_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import ACTIVATION_BYTES, tokens_of
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.overlap import exposed_s
from meshwright.costmodels.schedule.codes import DUAL, chunk_passes, chunks_a_stage
from meshwright.costmodels.strides import pipeline_stride


def pipeline_communication_s(
    job: Job, layouts: LayoutTable, total: FloatArray, work_s: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Give the exposed seconds of a step's messages between stages, [layouts], with `total` micro-batches.

    The second is the share of a micro-batch's passes that those which don't show run beside.

    Each chunk receives activations and gradients of each micro-batch; nothing hides those of fill and drain.

    Schedules of several chunks can send while they compute another one; plain ones wait. DualPipe's messages run beside
    compute whatever the software does elsewhere, and so do those that share a vocabulary. All that do run one after
    another beside the same passes of a micro-batch, and what is idle between them: `work_s`, [layouts].
    """
    group = _pipeline_group(layouts)
    state_bytes = ACTIVATION_BYTES * job.model.hidden * tokens_of(job, layouts).held
    each_s = message_s(job, layouts)
    passes, chunks = chunk_passes(layouts, total), chunks_a_stage(layouts)
    overlapped = (job.stack.overlap_pipeline & (chunks > 1)) | np.isin(layouts.schedule, DUAL)
    received_s = 2.0 * each_s * chunks
    shared = layouts.vocabulary_parallel == 1
    vocabulary_s = np.where(shared, total / passes * _vocabulary_messages_s(job, group, state_bytes), 0.0)
    hidden_s = np.where(overlapped, received_s, 0.0) + vocabulary_s
    contention = job.cluster.device.calibration.contention
    steady_s = passes * (np.where(overlapped, 0.0, received_s) + exposed_s(hidden_s, work_s, contention))
    ends_s = 2.0 * each_s * (layouts.pipeline_parallel - 1)
    several = layouts.pipeline_parallel > 1
    taken = np.where(several, np.minimum(hidden_s / contention / work_s, 1.0), 0.0)
    return np.where(several, steady_s + ends_s, 0.0), taken


def message_s(job: Job, layouts: LayoutTable) -> FloatArray:
    """Give the seconds of one message of a micro-batch from stage to stage, [layouts]."""
    group = _pipeline_group(layouts)
    state_bytes = ACTIVATION_BYTES * job.model.hidden * tokens_of(job, layouts).held
    if not job.stack.split_messages:
        return send_s(job.cluster, group, state_bytes)
    # Under sequence parallelism a rank's tokens are its share already, and nobody gathers them.
    parts = np.where(layouts.sequence_parallel == 1, 1, layouts.tensor_parallel)
    shared_s = send_s(job.cluster, group, state_bytes / parts)
    return shared_s + all_gather_s(job.cluster, Group(size=parts, stride=np.ones_like(parts)), state_bytes)


def _pipeline_group(layouts: LayoutTable) -> Group:
    return Group(size=layouts.pipeline_parallel, stride=pipeline_stride(layouts))


def _vocabulary_messages_s(job: Job, group: Group, state_bytes: FloatArray) -> FloatArray:
    """Give the seconds of sharing embedding and head over all stages, a micro-batch, [layouts].

    The last stage's output goes to all stages, what they make of its gradient and of the embedding is summed, and the
    embedding's gradient goes to all; statistics of the loss weigh nothing (arXiv 2411.05288, section 4).
    """
    return 2.0 * (all_gather_s(job.cluster, group, state_bytes) + reduce_scatter_s(job.cluster, group, state_bytes))
