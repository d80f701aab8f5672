"""The laws of schedules on the pipelines that the event simulation runs."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from simulation.event_simulation import Seconds, Work

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import SCHEDULES
from meshwright.costmodels.schedule import StageTimes, waiting_s

KINDS = ("F", "B", "W")


def proportional(sizes: Sequence[float], *, backward: float, weight: float = 0.0) -> Seconds:
    """Give what chunks of these sizes take, forward passes as long as they are large."""
    return {kind: [size * each for size in sizes] for kind, each in zip(KINDS, (1.0, backward, weight), strict=True)}


def chunks_of(order: Sequence[Work]) -> tuple[int, ...]:
    """Give the model's chunks that a stage's order has, in the order of the model."""
    return tuple(sorted({what.chunk for work in order for what in work}))


def stage_times(orders: Sequence[Sequence[Work]], seconds: Seconds) -> StageTimes:
    """Give the stages that run these orders, equal neighbours as one run."""
    stages = [tuple(tuple(seconds[kind][chunk] for kind in KINDS) for chunk in chunks_of(order)) for order in orders]
    runs = [(times, len(list(equal))) for times, equal in groupby(stages)]
    turns = [(times, step) for times, length in runs for step in (1, length - 1) if step]
    steps = np.array([[step] for _, step in turns])
    forward_s, backward_s, weight_s = np.array([times for times, _ in turns], dtype=float).transpose(2, 1, 0)[..., None]
    return StageTimes(
        stage=np.cumsum(steps, axis=0) - 1,
        steps=steps,
        forward_s=forward_s,
        backward_s=backward_s,
        weight_s=weight_s,
    )


def law_s(
    schedule: Schedule, orders: Sequence[Sequence[Work]], seconds: Seconds, count: int, *, together: bool = True
) -> float:
    """Give what the schedule's law says that a step takes."""
    times = stage_times(orders, seconds)
    passes = np.array([count / 2 if schedule is Schedule.DUAL_PIPE else float(count)])
    bubble_s = waiting_s(
        SCHEDULES.index(schedule), times, passes=passes, pipeline=np.array([len(orders)]), together=together
    )
    return float((passes * times.busiest_s + bubble_s)[0])
