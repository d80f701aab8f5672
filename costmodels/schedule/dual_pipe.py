"""DualPipe (arXiv 2412.19437, section 3.2.1) and DualPipeV, its half: two streams of micro-batches meet on a stage.

DualPipe feeds half of the micro-batches from each end of P stages (an even number), each of which has the model's
chunks s and P - 1 - s, so that all parameters exist twice. DualPipeV folds the model over D stages instead, as ZBV
does; its stage s does what DualPipe's does of P = 2 D, with every micro-batch in both streams. Forward and backward
passes of the two streams run as pairs, whose all-to-alls run beside each other's compute.

With f, b, w the seconds of a forward pass, a backward pass without and the weight gradients of one chunk of the mean
stage, N micro-batches in both streams together, t the seconds of the busiest stage for a chunk, and n = P / 2 - 1, the
step takes the longest of

    N t
    N (f + b + w) + (n - 1) f + 2 n b - n w
    N (f + b + w) + 2 n f + n b - n w

less N - P / 2 - 2 times what a pair hides. (The bubble of the table in the authors' README, n (F&B + B - 3 W), where B
has w in it and nothing is hidden, is n (f + 2 b - w): f more than the first of these.) Exact for equal chunks and
N >= 2 P; for unequal ones (30 % each way, or a head of up to two chunks) within 12 %, most of which is at N = 2 P.
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable
from meshwright.costmodels.schedule.codes import DUAL, DUAL_PIPE
from meshwright.costmodels.schedule.stage_times import StageTimes


def dual_pipe_s(times: StageTimes, passes: FloatArray, pipeline: IntArray) -> FloatArray:
    """Give the seconds of all micro-batches, [layouts], of stages of two chunks each, when pairs hide nothing.

    Args:
        times: the stages, as if a micro-batch went through both chunks.
        passes: how often each chunk is passed in a step, [layouts]: N / 2.
        pipeline: stages of DualPipe, twice those of DualPipeV, [layouts].

    """
    forward_s, backward_s, weight_s = (
        times.mean_s(seconds) for seconds in (times.forward_s, times.backward_s, times.weight_s)
    )
    others = pipeline / 2 - 1
    waiting_s = np.maximum((others - 1) * forward_s + 2 * others * backward_s, others * (2 * forward_s + backward_s))
    mean_s = 2 * passes * (forward_s + backward_s + weight_s)
    return np.maximum(passes * times.busiest_s, mean_s + waiting_s - np.minimum(others, 2 * passes) * weight_s)


def paired_passes(layouts: LayoutTable, total: FloatArray) -> FloatArray:
    """Give how many pairs of a forward and a backward pass of one chunk a step is shortened by, [layouts].

    Args:
        layouts: the layouts; 0 for those of other schedules.
        total: micro-batches of a step, [layouts].

    """
    both = layouts.schedule == DUAL_PIPE
    streams = np.where(both, total, 2 * total)
    half = np.where(both, layouts.pipeline_parallel / 2, layouts.pipeline_parallel)
    return np.where(np.isin(layouts.schedule, DUAL), np.maximum(streams - half - 2, 0.0), 0.0)
