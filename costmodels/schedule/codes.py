"""Schedules as a layout table stores them, and what they ask of a layout."""

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import SCHEDULES, FloatArray, IntArray, LayoutTable

GPIPE = SCHEDULES.index(Schedule.GPIPE)
ONE_F_ONE_B = SCHEDULES.index(Schedule.ONE_F_ONE_B)
INTERLEAVED = SCHEDULES.index(Schedule.INTERLEAVED)
ZERO_BUBBLE_H1 = SCHEDULES.index(Schedule.ZERO_BUBBLE_H1)
ZERO_BUBBLE_2P = SCHEDULES.index(Schedule.ZERO_BUBBLE_2P)
V_HALF = SCHEDULES.index(Schedule.V_HALF)
V_MIN = SCHEDULES.index(Schedule.V_MIN)
ZERO_BUBBLE_V = SCHEDULES.index(Schedule.ZERO_BUBBLE_V)
DUAL_PIPE = SCHEDULES.index(Schedule.DUAL_PIPE)
DUAL_PIPE_V = SCHEDULES.index(Schedule.DUAL_PIPE_V)

# Schedules that put off weight gradients until nothing else can run.
SPLIT_BACKWARD = (ZERO_BUBBLE_H1, ZERO_BUBBLE_2P, V_HALF, V_MIN, ZERO_BUBBLE_V, DUAL_PIPE, DUAL_PIPE_V)
DUAL = (DUAL_PIPE, DUAL_PIPE_V)
# Schedules that place chunks s and 2 P - 1 - s on stage s.
FOLDED = (V_HALF, V_MIN, ZERO_BUBBLE_V, DUAL_PIPE_V)


def micro_batches(global_batch: int, layouts: LayoutTable) -> FloatArray:
    """Give the micro-batches of one step of one replica, shape [layouts]."""
    total: FloatArray = global_batch / (layouts.micro_batch * layouts.data_parallel)
    return total


def chunks_a_stage(layouts: LayoutTable) -> IntArray:
    """Give how many model chunks a stage has, [layouts]."""
    return np.where(layouts.schedule == DUAL_PIPE, 2, layouts.virtual_pipeline)


def chunk_passes(layouts: LayoutTable, total: FloatArray) -> FloatArray:
    """Give how often each chunk is passed in a step of `total` micro-batches, [layouts]; DualPipe feeds two copies."""
    return np.where(layouts.schedule == DUAL_PIPE, 0.5 * total, total)
