"""What the cost model says of every stage that may be: seconds and peak bytes, by what it holds and recomputes.

They are the cost model's own functions, of a stage table whose stages are all that there may be.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from meshwright.costmodels.device_memory import nvidia_smi_bytes, stage_memory
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import LayerTime
from meshwright.costmodels.layout import FloatArray, IntArray, Layout, LayoutTable
from meshwright.costmodels.pipeline_bubble import stage_times
from meshwright.costmodels.predict import part_times, stage_work, work_beside
from meshwright.costmodels.schedule import alike, micro_batches
from meshwright.costmodels.state import stage_parameters
from meshwright.costmodels.synchronisation import exposed_communication_s, optimizer_s
from meshwright.planner.stages.segments import Segments


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Figures of stages, arrays of any one shape.

    forward_s, backward_s, weight_s: one micro-batch's passes; backward without weight gradients where those are apart.
    end_s: once a step, exposed communication of gradients and parameters, and the optimizer; at least, where it depends
    on the whole step.
    peak_bytes: as nvidia-smi counts it.
    """

    forward_s: FloatArray
    backward_s: FloatArray
    weight_s: FloatArray
    end_s: FloatArray
    peak_bytes: FloatArray

    @property
    def busy_s(self) -> FloatArray:
        """Seconds that a stage computes for one micro-batch."""
        return self.forward_s + self.backward_s + self.weight_s

    def at(self, *index: IntArray) -> Self:
        """Give some of them, by index arrays."""
        return type(self)(**{item.name: getattr(self, item.name)[index] for item in fields(self)})


def figures_of(
    job: Job, layout: Layout, kinds: Sequence[LayerTime], segments: Segments, recomputed: IntArray, *, below_s: float
) -> Figures:
    """Give the figures of each stage, run and number of recomputed layers, [stages, runs, choices].

    Args:
        job: the job.
        layout: the layout, whose own split doesn't matter.
        kinds: seconds of a layer of each kind.
        segments: the runs.
        recomputed: layers that each choice recomputes, [stages, runs, choices].
        below_s: what the step takes at most, or the figures don't matter.

    """
    table = LayoutTable.of([layout])
    stage, run, _ = np.indices(recomputed.shape)
    stages = segments.table(
        layout,
        stage=stage.ravel(),
        run=run.ravel(),
        recomputed=recomputed.ravel(),
        mtp_layers=job.model.mtp_layers,
    )
    parameters = stage_parameters(job, table, stages)
    parts = part_times(job, table, stages, parameters, kinds)
    total = micro_batches(job.global_batch, table)
    work = stage_work(stages, parts)
    beside = work_beside(table, work, longest_s(layout, work.forward_s + work.backward_s, below_s=below_s, total=total))
    gradients_s, gathers_s = exposed_communication_s(job, table, stages, parameters, work, beside=beside, total=total)
    (group,) = alike(table)
    times = stage_times(job, table, stages, parts, group)
    held_bytes = stage_memory(job, table, stages).held_bytes
    return Figures(
        forward_s=times.forward_s.reshape(recomputed.shape),
        backward_s=times.backward_s.reshape(recomputed.shape),
        weight_s=times.weight_s.reshape(recomputed.shape),
        end_s=(gradients_s + gathers_s + optimizer_s(job, table, parameters)).reshape(recomputed.shape),
        peak_bytes=nvidia_smi_bytes(job, table, held_bytes).reshape(recomputed.shape),
    )


def longest_s(layout: Layout, busy_s: FloatArray, *, below_s: float, total: FloatArray) -> FloatArray:
    """Give what a micro-batch's share of a step is at most, [1], given what stages take for one micro-batch.

    Messages that run beside all of a step show the less the longer it is. No step is longer than all stages' passes
    one after another; nor than `below_s`, or it doesn't matter.
    """
    return np.asarray(np.minimum(below_s / total, layout.pipeline_parallel * busy_s.max()))
