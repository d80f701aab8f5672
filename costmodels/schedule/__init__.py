"""Pipeline schedules: how long stages wait for each other, and how many micro-batches each holds."""

from meshwright.costmodels.schedule.codes import SPLIT_BACKWARD, chunk_passes, chunks_a_stage, micro_batches
from meshwright.costmodels.schedule.dual_pipe import paired_passes
from meshwright.costmodels.schedule.held import held_micro_batches
from meshwright.costmodels.schedule.laws import alike, waiting_s
from meshwright.costmodels.schedule.stage_times import StageTimes

__all__ = [
    "SPLIT_BACKWARD",
    "StageTimes",
    "alike",
    "chunk_passes",
    "chunks_a_stage",
    "held_micro_batches",
    "micro_batches",
    "paired_passes",
    "waiting_s",
]
