"""GPipe: all forward passes, then all backward passes (arXiv 1811.06965).

Each half is a line of M equal jobs through P machines, which takes one job's way through all of them and M - 1 times
the slowest machine:

    T = sum f_s + (M - 1) max f_s + sum b_s + (M - 1) max b_s

Exact for any stages, b with the weight gradients in it.
"""

from meshwright.costmodels.layout import FloatArray
from meshwright.costmodels.schedule.stage_times import StageTimes


def gpipe_s(times: StageTimes, total: FloatArray) -> FloatArray:
    """Give the seconds of all micro-batches, [layouts], of stages of one chunk.

    Args:
        times: the stages.
        total: micro-batches of a step, [layouts].

    """
    return _half_s(times, times.forward_s[0], total) + _half_s(times, times.backward_s[0] + times.weight_s[0], total)


def _half_s(times: StageTimes, seconds: FloatArray, total: FloatArray) -> FloatArray:
    half: FloatArray = (times.steps * seconds).sum(axis=0) + (total - 1) * seconds.max(axis=0)
    return half
