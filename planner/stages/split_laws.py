"""The step of splits by their schedule's law, of the figures of their stages."""

import numpy as np

from meshwright.costmodels.layout import FloatArray, Layout, LayoutTable
from meshwright.costmodels.schedule import StageTimes, alike, waiting_s
from meshwright.planner.stages.figures import Figures


def split_steps_s(layout: Layout, figures: Figures, *, total: float, together: bool) -> FloatArray:
    """Give the passes and the end of a step of some splits, [splits], of figures [splits, stages].

    Args:
        layout: whose schedule runs the stages, of one chunk each.
        figures: of the stages of each split.
        total: micro-batches.
        together: stages wait for one another at the end of a step.

    """
    count, stages = figures.busy_s.shape
    times = StageTimes(
        stage=np.broadcast_to(np.arange(stages)[:, np.newaxis], (stages, count)),
        steps=np.ones((stages, count), dtype=np.int64),
        forward_s=figures.forward_s.T[np.newaxis],
        backward_s=figures.backward_s.T[np.newaxis],
        weight_s=figures.weight_s.T[np.newaxis],
    )
    (group,) = alike(LayoutTable.of([layout]))
    bubble_s = waiting_s(
        group.schedule, times, passes=np.full(count, total), pipeline=np.full(count, stages), together=together
    )
    return np.asarray(total * times.busiest_s + bubble_s + figures.end_s.max(axis=1))
