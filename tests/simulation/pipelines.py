"""The laws of schedules on the pipelines that the product's own event simulation runs."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import SCHEDULES
from meshwright.costmodels.schedule import StageTimes, waiting_s
from meshwright.planner.verification.pipeline.passes import Orders, Work
from meshwright.planner.verification.pipeline.simulation import Durations, Run, simulated

KINDS = ("F", "B", "W")

Seconds = Mapping[str, Sequence[float]]
"""By kind, what a pass of each of the model's chunks takes."""


def ran(orders: Orders, seconds: Seconds, *, hidden_s: float = 0.0) -> Run:
    """Run orders whose chunks take as long on any stage; a forward with a backward pass hides `hidden_s`."""
    chunks = range(len(seconds["F"]))
    pass_s = {(kind, chunk): seconds[kind][chunk] for kind in KINDS for chunk in chunks}
    paired_s = dict.fromkeys(chunks, hidden_s)
    return simulated(orders, Durations(pass_s=[pass_s] * len(orders), paired_s=[paired_s] * len(orders)))


def proportional(sizes: Sequence[float], *, backward: float, weight: float = 0.0) -> Seconds:
    """Give what chunks of these sizes take, forward passes as long as they are large."""
    return {kind: [size * each for size in sizes] for kind, each in zip(KINDS, (1.0, backward, weight), strict=True)}


def most_held(order: Sequence[Work], *, until: str) -> int:
    """Count the most forward passes of which the pass that lets go of activations, "B" or "W", hasn't run."""
    change = {"F": 1, "B": 0, "W": 0} | {until: -1}
    return max(accumulate(sum(change[what.kind] for what in work) for work in order))


def chunks_of(order: Sequence[Work]) -> tuple[int, ...]:
    """Give the model's chunks that a stage's order has, in the order of the model."""
    return tuple(sorted({what.chunk for work in order for what in work}))


def stage_times(orders: Orders, seconds: Seconds) -> StageTimes:
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


def law_s(schedule: Schedule, orders: Orders, seconds: Seconds, count: int, *, together: bool = True) -> float:
    """Give what the schedule's law says that a step takes."""
    times = stage_times(orders, seconds)
    passes = np.array([count / 2 if schedule is Schedule.DUAL_PIPE else float(count)])
    bubble_s = waiting_s(
        SCHEDULES.index(schedule), times, passes=passes, pipeline=np.array([len(orders)]), together=together
    )
    return float((passes * times.busiest_s + bubble_s)[0])
