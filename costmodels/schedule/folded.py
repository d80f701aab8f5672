"""Schedules that fold the model over the pipeline and back: stage s of P has its chunks s and 2 P - 1 - s.

V-Half and V-Min (arXiv 2405.15362, section 3) repeat one micro-batch's passes every six passes, squeeze out what is
idle and move passes of fill and drain forward where memory allows; V-Half holds half, V-Min a third of the activations
of 1F1B. The order is made for passes of equal length and then kept. ZBV (arXiv 2401.10241, section 6) holds as many as
1F1B.

With M micro-batches, t the seconds of the busiest stage for one, and for the mean stage f, b, w the seconds of one of
its chunks' forward pass, backward pass without and weight gradients, the step takes the longest of

    V-Half   M t + (P - 3 + 2 o) f + 3 (P - 1) b - (P + 1 - o) w          o = 1 where P is odd, else 0
             M (4 b + w) + 2 P f + (2 P - 6 + 2 o) b - (P - o) w / 2
    V-Min    M t + 2 P f + (2 P - 6 - m) b + w                            m = 2 where 3 divides P, else 0
             M 6 b + the same;  M 6 f + (2 P - 6 - m) f + 2 P b + w
    ZBV      M t;  M 2 (f + b + w) + (P - 1) max(b, 2 (b - w))

and where ZBV's stages start the next step when they are done, b is not among the last two. M (4 b + w) and M 6 b are
chains of (almost) nothing but backward passes: where those take longer, each micro-batch has a bubble of its own, since
an order with so little memory leaves it no room. The constants are those of the orders, read off their longest chains
for w <= f <= b.

Exact for equal chunks, w <= f <= b and M >= 2 P: ZBV for any P, V-Half for P >= 4; V-Half of 3 and V-Min of 3 stages
and more are within 2 %, of 2 stages V-Half within 7 and V-Min within 25 %. For unequal chunks (30 % each way, or a head
of up to two chunks, M from 2 P) all are within 12 %, from 3 stages on.
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.costmodels.schedule.stage_times import StageTimes


def v_half_s(times: StageTimes, total: FloatArray, pipeline: IntArray) -> FloatArray:
    """Give the seconds of all micro-batches under V-Half, [layouts], of `pipeline` stages of two chunks each."""
    forward_s, backward_s, weight_s = _chunk_s(times)
    odd = pipeline % 2
    busy_s = total * times.busiest_s + (pipeline - 3 + 2 * odd) * forward_s
    busy_s += 3 * (pipeline - 1) * backward_s - np.minimum(pipeline + 1 - odd, 2 * total) * weight_s
    repeating_s = total * (4 * backward_s + weight_s) + 2 * pipeline * forward_s
    repeating_s += (2 * pipeline - 6 + 2 * odd) * backward_s - np.minimum((pipeline - odd) / 2, total) * weight_s
    longest: FloatArray = np.maximum(busy_s, repeating_s)
    return longest


def v_min_s(times: StageTimes, total: FloatArray, pipeline: IntArray) -> FloatArray:
    """Give the seconds of all micro-batches under V-Min, [layouts], of `pipeline` stages of two chunks each."""
    forward_s, backward_s, weight_s = _chunk_s(times)
    fewer = 2 * pipeline - 6 - 2 * (pipeline % 3 == 0)
    ends_s = 2 * pipeline * forward_s + fewer * backward_s + weight_s
    busy_s = np.maximum(total * times.busiest_s, total * 6 * backward_s) + ends_s
    forward_ends_s = fewer * forward_s + 2 * pipeline * backward_s + weight_s
    longest: FloatArray = np.maximum(busy_s, total * 6 * forward_s + forward_ends_s)
    return longest


def zero_bubble_v_s(times: StageTimes, total: FloatArray, pipeline: IntArray, *, together: bool = True) -> FloatArray:
    """Give the seconds of all micro-batches under ZBV, [layouts].

    Args:
        times: the stages, of two chunks each.
        total: micro-batches of a step, [layouts].
        pipeline: stages, [layouts].
        together: stages wait for one another at the end of a step.

    """
    forward_s, backward_s, weight_s = _chunk_s(times)
    mean_s = total * 2 * (forward_s + backward_s + weight_s)
    filled_s = 2 * np.minimum(pipeline - 1, total) * weight_s
    waiting_s = 2 * (pipeline - 1) * backward_s - filled_s
    if together:
        waiting_s = np.maximum(waiting_s, (pipeline - 1) * backward_s)
    return np.maximum(total * times.busiest_s, mean_s + np.maximum(waiting_s, 0.0))


def _chunk_s(times: StageTimes) -> tuple[FloatArray, FloatArray, FloatArray]:
    return times.mean_s(times.forward_s), times.mean_s(times.backward_s), times.mean_s(times.weight_s)
