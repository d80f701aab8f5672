"""What each pass of a pipeline takes, chunk by chunk: what a step's seconds are made of, and a schedule runs.

A message keeps the stage that waits for it from computing for a part of its time, by which each pass is longer; for the
rest it is under way while stages compute. With M micro-batches through V chunks a stage of P, and m seconds a message
of which e are exposed, messages between stages come to 2 e V M + 2 m (P - 1) (pipeline_messages.py).
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import SCHEDULES, FloatArray, IntArray, Layout, LayoutTable
from meshwright.costmodels.paired_layers import saved_by_pairing_s
from meshwright.costmodels.pipeline_bubble import stage_times
from meshwright.costmodels.pipeline_messages import message_s
from meshwright.costmodels.predict import layer_times, part_times, predict_time
from meshwright.costmodels.schedule import chunk_passes, chunks_a_stage, micro_batches
from meshwright.costmodels.schedule.codes import DUAL
from meshwright.costmodels.schedule.laws import Alike, alike
from meshwright.costmodels.stage_table import stage_table
from meshwright.costmodels.state import stage_parameters

ByChunk = tuple[tuple[float, ...], ...]
"""Seconds of one micro-batch, by stage and by chunk in the order in which a micro-batch meets a stage's chunks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTimes:
    """What the passes of a layout take.

    backward_s: without weight_s, which are those of weight gradients in a pass of their own; None where none is.
    paired_s: what a forward and a backward pass of a chunk save when they run as a pair; those of two chunks save half
    of both. None where the schedule has no pairs.
    message_s: one message from stage to stage. exposed_s: how much longer each forward and each backward pass is for
    its message.
    """

    forward_s: ByChunk
    backward_s: ByChunk
    weight_s: ByChunk | None
    paired_s: ByChunk | None
    message_s: float
    exposed_s: float


def pass_times(job: Job, layout: Layout) -> PassTimes:
    """Give what the passes of a layout take. Raises MissingData as predict_time does."""
    table = LayoutTable.of([layout])
    stages, kinds = stage_table(job.model, table), layer_times(job, table)
    parts = part_times(job, table, stages, stage_parameters(job, table, stages), kinds)
    everything = Alike(schedule=int(table.schedule[0]), chunks=int(chunks_a_stage(table)[0]), rows=np.array([True]))
    times = stage_times(job, table, stages, parts, next(iter(alike(table)), everything))
    used = times.steps[:, 0]
    forward_s, backward_s, weight_s = (
        _by_stage(seconds[:, :, 0], used) for seconds in (times.forward_s, times.backward_s, times.weight_s)
    )
    saved_s = np.array([sum(float(saved[0]) for saved in saved_by_pairing_s(job, time).values()) for time in kinds])
    turns = stages.cuts.layers[stages.cut[0], stages.cuts.turn[stages.cut[0]]]
    message, exposed = _message_s(job, table)
    return PassTimes(
        forward_s=forward_s,
        backward_s=backward_s,
        weight_s=weight_s if any(map(any, weight_s)) else None,
        paired_s=_by_stage((turns @ saved_s).T, used) if SCHEDULES.index(layout.schedule) in DUAL else None,
        message_s=message,
        exposed_s=exposed,
    )


def _by_stage(seconds: FloatArray, used: IntArray) -> ByChunk:
    """Give for each stage what the turn that stands for it has, of [chunks, turns]."""
    repeated = np.repeat(seconds, used, axis=1)
    return tuple(tuple(map(float, stage)) for stage in repeated.T)


def _message_s(job: Job, table: LayoutTable) -> tuple[float, float]:
    """Give the seconds of a message, and the part of them by which a pass is longer."""
    between = int(table.pipeline_parallel[0]) - 1
    if not between:
        return 0.0, 0.0
    each_s = float(message_s(job, table)[0])
    passes = float(chunk_passes(table, micro_batches(job.global_batch, table))[0])
    steady_s = float(predict_time(job, table).breakdown["pipeline_communication"][0]) - 2.0 * each_s * between
    return each_s, steady_s / (2.0 * passes * float(chunks_a_stage(table)[0]))
