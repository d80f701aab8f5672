"""Which methods of context parallelism needn't be looked at, since another one is as good in every way.

Of two layouts that differ in the method alone, one is no slower than the other if a layer's passes are no longer,
forward, backward and repeated, whether weight gradients are put off and passes paired or not; and it needs no more
memory if a layer keeps and gathers no more. All of these follow from what a branch is, whatever is below it.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.context_messages import gathered_bytes
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, layer_time
from meshwright.costmodels.layer_work import attended_kv_heads
from meshwright.costmodels.layout import (
    CONTEXT_METHODS,
    SCHEDULES,
    BoolArray,
    FloatArray,
    IntArray,
    LayoutTable,
    numbered,
)
from meshwright.costmodels.paired_layers import saved_by_pairing_s
from meshwright.costmodels.predict import distinct_layer_rows
from meshwright.costmodels.schedule.codes import DUAL, SPLIT_BACKWARD
from meshwright.planner.layout.rules import Columns

METHOD = "context_method"


def settings_of(branches: Columns) -> IntArray:
    """Give each branch the number of what it is beside its method, [branches]."""
    numbers = np.zeros(len(branches[METHOD]), dtype=np.int64)
    for name, column in branches.items():
        if name != METHOD:
            _, numbers = numbered(numbers * (column.max(initial=0) + 1) + column)
    return numbers


def is_dominated(job: Job, branches: LayoutTable, settings: IntArray) -> BoolArray:
    """Give where another of these branches is as good in the same setting, shape [branches].

    Of equals the first of CONTEXT_METHODS is kept.
    """
    distinct, back = distinct_layer_rows(branches)
    figures = np.transpose([np.broadcast_to(figure, len(distinct)) for figure in _figures(job, distinct)])[back]
    _, settings = numbered(settings)
    table = np.full((settings.max(initial=-1) + 1, len(CONTEXT_METHODS), figures.shape[1]), np.inf)
    table[settings, branches.context_method] = figures
    dominated: BoolArray = _is_beaten(table)[settings, branches.context_method]
    return dominated


def _figures(job: Job, layouts: LayoutTable) -> Iterator[FloatArray]:
    """Give all that the method decides, [layouts] each; the less the better."""
    yield (layouts.ulysses_parallel > 1).astype(float)
    codes = {SCHEDULES.index(schedule) for schedule in (Schedule.ONE_F_ONE_B, *job.stack.schedules)}
    ways = {code in SPLIT_BACKWARD: code for code in codes}
    for layer in job.model.layer_kinds:
        yield gathered_bytes(job, layer.attention, layouts)
        yield attended_kv_heads(layer.attention, layouts)
        for code in ways.values():
            time = layer_time(job, layer, replace(layouts, schedule=np.full(len(layouts), code)))
            passes = [np.asarray(sum(part.values())) for part in (time.forward, time.backward)]
            # Selective recomputation repeats attention at most, with the backward pass.
            yield from (*passes, passes[1] + time.forward[Cause.ATTENTION])
            if not codes.isdisjoint(DUAL):
                yield passes[0] + passes[1] - sum(saved_by_pairing_s(job, time).values())


def _is_beaten(figures: FloatArray) -> BoolArray:
    """Give where another method of the same setting comes to no more in any figure, [settings, methods]."""
    beaten = np.zeros(figures.shape[:2], dtype=bool)
    for one in range(figures.shape[1]):
        for other in range(figures.shape[1]):
            no_worse = (figures[:, other] <= figures[:, one]).all(axis=1)
            better = (figures[:, other] < figures[:, one]).any(axis=1)
            beaten[:, one] |= no_worse & (better | (other < one))
    return beaten
