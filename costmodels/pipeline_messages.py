"""Messages between pipeline stages: activations forward, their gradients backward."""

import numpy as np

from meshwright.costmodels.collectives import Group, all_gather_s, send_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import ACTIVATION_BYTES, tokens_of
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.overlap import exposed_s


def pipeline_communication_s(job: Job, layouts: LayoutTable, total: FloatArray, chunk_work_s: FloatArray) -> FloatArray:
    """Give the exposed seconds of a step's messages between stages, [layouts], with `total` micro-batches.

    Each chunk receives activations and gradients of each micro-batch; nothing hides those of fill and drain.

    Interleaved schedules can send while they compute another chunk, of `chunk_work_s`, shape [layouts]; plain ones
    wait.
    """
    stride = layouts.tensor_parallel * layouts.context_parallel * layouts.data_parallel
    group = Group(size=layouts.pipeline_parallel, stride=stride)
    state_bytes = ACTIVATION_BYTES * job.model.hidden * tokens_of(job, layouts).held
    if job.stack.split_messages:
        # Under sequence parallelism a rank's tokens are its share already, and nobody gathers them.
        parts = np.where(layouts.sequence_parallel == 1, 1, layouts.tensor_parallel)
        shared_s = send_s(job.cluster, group, state_bytes / parts)
        message_s = shared_s + all_gather_s(job.cluster, Group(size=parts, stride=np.ones_like(stride)), state_bytes)
    else:
        message_s = send_s(job.cluster, group, state_bytes)
    beside_s = exposed_s(2.0 * message_s, chunk_work_s, job.cluster.device.calibration.contention)
    overlapped = job.stack.overlap_pipeline & (layouts.virtual_pipeline > 1)
    steady_s = total * layouts.virtual_pipeline * np.where(overlapped, beside_s, 2.0 * message_s)
    ends_s = 2.0 * message_s * (layouts.pipeline_parallel - 1)
    return np.where(layouts.pipeline_parallel > 1, steady_s + ends_s, 0.0)
