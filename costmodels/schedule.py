"""Pipeline schedules: how long stages wait for each other, and how many micro-batches each holds.

With P stages, V chunks a stage, M micro-batches, and for stage s the time t_s = f_s + b_s + w_s of one micro-batch
(forward, backward by data, backward by weights), the slowest stage is busy M max t_s and idle while the others fill
and drain:

    GPipe, 1F1B    sum of the other stages' t_s, (P - 1) t for equal stages   arXiv 2104.04473, section 2.2
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

from meshwright.costmodels.layout import SCHEDULES, FloatArray, IntArray, LayoutTable, Schedule

GPIPE = SCHEDULES.index(Schedule.GPIPE)
ZERO_BUBBLE_H1 = SCHEDULES.index(Schedule.ZERO_BUBBLE_H1)
ZERO_BUBBLE_2P = SCHEDULES.index(Schedule.ZERO_BUBBLE_2P)


def micro_batches(global_batch: int, layouts: LayoutTable) -> FloatArray:
    """Give the micro-batches of one step of one replica, shape [layouts]."""
    total: FloatArray = global_batch / (layouts.micro_batch * layouts.data_parallel)
    return total


def bubble_s(
    layouts: LayoutTable,
    *,
    total_s: FloatArray,
    weight_gradient_s: FloatArray,
    multiplicity: IntArray,
    slowest: IntArray,
) -> FloatArray:
    """Give the seconds that the slowest stage waits for the others, shape [layouts].

    Args:
        layouts: the layouts.
        total_s: one micro-batch's time of each distinct stage, [layouts, stages].
        weight_gradient_s: the part of it that weight gradients take, [layouts, stages].
        multiplicity: how many stages are like each, [layouts, stages].
        slowest: which distinct stage is slowest, [layouts].

    """
    schedule = layouts.schedule[:, np.newaxis]
    waiting = total_s
    waiting = np.where(schedule == ZERO_BUBBLE_H1, total_s - 2.0 * weight_gradient_s, waiting)
    waiting = np.where(schedule == ZERO_BUBBLE_2P, np.maximum(total_s - 3.0 * weight_gradient_s, 0.0), waiting)
    rows = np.arange(len(layouts))
    others = (waiting * multiplicity).sum(axis=1) - waiting[rows, slowest]
    idle_s: FloatArray = others / layouts.virtual_pipeline
    return idle_s


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
