"""Adding up gradients over the micro-batches of a step, where a pass of its own does.

Products that make weight gradients add them to the sums of g bytes themselves where the software has that (`matmul.py`
counts what they move). Else they write them in 16 bits, and a pass reads the new gradient, and reads and writes the
sum: 2 + 2 g bytes for a parameter, as it does for a rank's shard where gradients are sharded within a step. The first
micro-batch has nothing to add to.
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
    device, added_bytes = job.cluster.device, PARAMETER_BYTES + 2 * gradient_bytes(job)
    held = np.zeros(parameters.dense.shape)
    for count, sharding in (
        (parameters.dense, dense_sharding(job, layouts)),
        (parameters.experts, expert_sharding(job, layouts)),
    ):
        by_product = job.stack.fused_accumulation & (sharding.gradients == 1)
        held = held + np.where(by_product, 0.0, count / sharding.gradients)
    repeated = 1.0 - 1.0 / total[:, np.newaxis]
    return repeated * added_bytes * held / (device.calibration.streaming * device.memory_bandwidth_bytes_per_s)
