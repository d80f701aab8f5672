"""Adding up gradients over the micro-batches of a step.

Products that make weight gradients write them in 16 bits. Where a product adds to the accumulated gradients itself, it
reads and writes those instead, of g bytes each: 2 g - 2 bytes more for a parameter. Where a pass of its own adds, that
reads the new gradient, and reads and writes the sum: 2 + 2 g. The first micro-batch has nothing to add to.
"""

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.parameter_bytes import PARAMETER_BYTES, gradient_bytes
from meshwright.costmodels.sharding import dense_sharding, expert_sharding
from meshwright.costmodels.state import StageParameters


def accumulation_s(job: Job, layouts: LayoutTable, parameters: StageParameters, *, total: FloatArray) -> FloatArray:
    """Give the seconds of adding up gradients, the mean over micro-batches, of each distinct stage, [layouts, stages].

    Where gradients are sharded within a step, what is added up is a rank's shard.

    Args:
        job: the job.
        layouts: the layouts.
        parameters: what each stage holds.
        total: micro-batches of a step, [layouts].

    """
    device, sum_bytes = job.cluster.device, 2 * gradient_bytes(job)
    added_bytes = sum_bytes - PARAMETER_BYTES if job.stack.fused_accumulation else sum_bytes + PARAMETER_BYTES
    dense, experts = dense_sharding(job, layouts), expert_sharding(job, layouts)
    held = parameters.dense / dense.gradients + parameters.experts / experts.gradients
    repeated = 1.0 - 1.0 / total[:, np.newaxis]
    return repeated * added_bytes * held / (device.calibration.streaming * device.memory_bandwidth_bytes_per_s)
