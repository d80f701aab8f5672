"""Pipeline schedules: how long stages wait for each other, and how many micro-batches each holds.

With P stages, V chunks a stage, M micro-batches, and for stage s the time t_s = f_s + b_s + w_s of one micro-batch
(forward, backward by data, backward by weights), the slowest stage is busy M max t_s and idle while the others fill
and drain:

    GPipe          sum of the other stages' t_s, (P - 1) t for equal stages   arXiv 2104.04473, section 2.2
    1F1B           the same for equal stages; else the longest chain through any stage k,
                   M t_k + sum before t_j + min(D, max(0, D - R f_k) + max(0, D - R (b_k + w_k))) - M max t_s,
                   with D the sum of t_j behind k and R = min(P - 1 - k, M - 1) micro-batches of slack
    interleaved    the same / V                                               section 2.2 there
    ZB-H1          sum of the others' f_s + b_s - w_s                         arXiv 2401.10241, section 2
    ZB-2p          sum of the others' max(f_s + b_s - 2 w_s, 0)

Micro-batches that a stage holds at its peak, in units of the stage's own layers:

    GPipe          M
    1F1B, ZB-H1    min(M, P - s)
    ZB-2p          min(M, 2 (P - s) - 1)
    interleaved    min(M V, 2 (P - s - 1) + (V - 1) P + 1) / V   (Megatron-Core's warm-up, plus the one in work)
"""

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import SCHEDULES, FloatArray, IntArray, LayoutTable

GPIPE = SCHEDULES.index(Schedule.GPIPE)
ONE_F_ONE_B = SCHEDULES.index(Schedule.ONE_F_ONE_B)
ZERO_BUBBLE_H1 = SCHEDULES.index(Schedule.ZERO_BUBBLE_H1)
ZERO_BUBBLE_2P = SCHEDULES.index(Schedule.ZERO_BUBBLE_2P)


def micro_batches(global_batch: int, layouts: LayoutTable) -> FloatArray:
    """Give the micro-batches of one step of one replica, shape [layouts]."""
    total: FloatArray = global_batch / (layouts.micro_batch * layouts.data_parallel)
    return total


def bubble_s(
    layouts: LayoutTable,
    *,
    forward_s: FloatArray,
    backward_s: FloatArray,
    weight_gradient_s: FloatArray,
    multiplicity: IntArray,
    total: FloatArray,
) -> FloatArray:
    """Give the seconds of a step beyond the slowest stage's own work, shape [layouts].

    Args:
        layouts: the layouts.
        forward_s: one micro-batch's forward pass of each distinct stage, in the order of the pipeline, [layouts,
        stages].
        backward_s: its backward pass, weight gradients included, [layouts, stages].
        weight_gradient_s: the part of that which weight gradients take, [layouts, stages].
        multiplicity: how many stages are like each, [layouts, stages]; 0 for padding.
        total: micro-batches of a step, [layouts].

    """
    schedule = layouts.schedule
    both_s = forward_s + backward_s
    sums_s = (both_s * multiplicity).sum(axis=1)
    slowest = np.argmax(np.where(multiplicity > 0, both_s, -1.0), axis=1)
    rows = np.arange(len(layouts))
    idle_s: FloatArray = (sums_s - both_s[rows, slowest]) / layouts.virtual_pipeline
    plain_s = _one_f_one_b_s(
        layouts, forward_s=forward_s, backward_s=backward_s, multiplicity=multiplicity, total=total
    )
    idle_s = np.where(schedule == ONE_F_ONE_B, plain_s - total * both_s[rows, slowest], idle_s)
    for zero_bubble, gradients in ((ZERO_BUBBLE_H1, 2.0), (ZERO_BUBBLE_2P, 3.0)):
        waiting_s = np.maximum(both_s - gradients * weight_gradient_s, 0.0) * multiplicity
        others_s = waiting_s.sum(axis=1) - waiting_s[rows, slowest] / np.maximum(multiplicity[rows, slowest], 1)
        idle_s = np.where(schedule == zero_bubble, others_s, idle_s)
    return idle_s


def _one_f_one_b_s(
    layouts: LayoutTable, *, forward_s: FloatArray, backward_s: FloatArray, multiplicity: IntArray, total: FloatArray
) -> FloatArray:
    """Give the seconds of all micro-batches under 1F1B, [layouts]: the longest chain through any one stage.

    Of equal neighbours the last is the stage whose chain is longest.
    """
    both_s = forward_s + backward_s
    until_s = np.cumsum(both_s * multiplicity, axis=1)
    behind_s = until_s[:, -1:] - until_s
    left = layouts.pipeline_parallel[:, np.newaxis] - np.cumsum(multiplicity, axis=1)
    slack = np.minimum(left, total[:, np.newaxis] - 1)
    chains_s = (total[:, np.newaxis] - 1) * both_s + until_s
    waits_s = [np.maximum(behind_s - slack * each_s, 0.0) for each_s in (forward_s, backward_s)]
    chains_s = chains_s + np.minimum(sum(waits_s), behind_s)
    longest: FloatArray = np.max(np.where(multiplicity > 0, chains_s, 0.0), axis=1)
    return longest


def held_micro_batches(layouts: LayoutTable, stage: IntArray, *, total: FloatArray) -> FloatArray:
    """Give the micro-batches whose activations each distinct stage holds at its peak, [layouts, stages].

    Args:
        layouts: the layouts.
        stage: index of each stage, [layouts, stages].
        total: micro-batches of a step, [layouts].

    """
    pipeline = layouts.pipeline_parallel[:, np.newaxis]
    virtual = layouts.virtual_pipeline[:, np.newaxis]
    schedule = layouts.schedule[:, np.newaxis]
    remaining = pipeline - stage
    plain = np.minimum(total[:, np.newaxis], remaining)
    held = np.where(schedule == GPIPE, total[:, np.newaxis], plain)
    held = np.where(schedule == ZERO_BUBBLE_2P, np.minimum(total[:, np.newaxis], 2 * remaining - 1), held)
    interleaved = (
        np.minimum(total[:, np.newaxis] * virtual, 2 * (remaining - 1) + (virtual - 1) * pipeline + 1) / virtual
    )
    return np.where(virtual > 1, interleaved, held)
