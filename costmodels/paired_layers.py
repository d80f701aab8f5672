"""Layers of which DualPipe runs a forward and a backward pass together (arXiv 2412.19437, section 3.2.1).

The all-to-alls of both run beside each other's compute, which they slow (overlap.py), where no message of tensor or
context ranks does already. The host launches both, so that it waits for the device, or the device for it, only once a
pair:

    max(launches of both, compute of both + exposed all-to-alls)
"""

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, LayerTime, busy_s
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.overlap import exposed_s
from meshwright.costmodels.schedule import chunk_passes, chunks_a_stage, paired_passes


def paired_share(layouts: LayoutTable, total: FloatArray) -> FloatArray:
    """Give the share of a step's passes that run as pairs, [layouts]: all but those of fill and drain.

    Args:
        layouts: the layouts; 0 for those of schedules that pair none.
        total: micro-batches of a step, [layouts].

    """
    return paired_passes(layouts, total) / (chunks_a_stage(layouts) * chunk_passes(layouts, total))


def saved_by_pairing_s(job: Job, time: LayerTime) -> dict[Cause, FloatArray]:
    """Give the seconds by cause that a layer's forward and backward pass save as a pair, [layouts].

    What the host saves may be negative, where it is slower than what is left of the all-to-alls.
    """
    both_s = {cause: time.forward[cause] + time.backward[cause] for cause in Cause}
    message_s = both_s[Cause.EXPERT]
    compute_s = both_s[Cause.MATMUL] + both_s[Cause.ATTENTION] + both_s[Cause.ELEMENTWISE]
    room_s = np.maximum(compute_s - time.hidden_s, 0.0)
    hidden_s = message_s - exposed_s(message_s, room_s, job.cluster.device.calibration.contention)
    waits_s = np.maximum(time.launch_s - (busy_s(both_s) - hidden_s), 0.0)
    return {Cause.EXPERT: hidden_s, Cause.HOST: both_s[Cause.HOST] - waits_s}
