"""Pipelines through several islands: the degrees that they can have, with a bound of the step of each.

A chain is islands in the order in which a pipeline passes them. All stages have the same replicas, context ranks and
micro-batch, so that each rank has one to send to; tensor and expert groups are each island's own. Island i has P_i
stages of n_i / (tensor_i context data) devices each; layers are dealt to all P = sum P_i of them.

A message over a link is waited for by the stage that it is for, or runs beside its passes (`buffered`): then the link
is like a stage between two others that holds no layers and takes a message's time each way, those before it have one
more micro-batch in flight, and the message only slows the passes beside it (overlap.py).

Bound: with c_s the seconds of a layer on stage s, of the kind of which L layers take most of all kinds, and x_s what
else it has for each micro-batch (messages that it waits for, embedding, head), a stage that is done with a micro-batch
by t seconds has floor((t - x_s) / c_s) of them at most. The least t by which all are done, and each stage has a layer,
is what the busiest stage takes at least. If it takes t, all stages together take S(t) at least: the x_s, and those
layers where they are shortest, as many as (t - x_s) / c_s says. Of the 1F1B schedule with M micro-batches
(planner/layout/bound.py),

    T >= max( M t,  (M - P - 1) t + 2 S(t) where M > P + 1,  k S(t) ) + overhead
    k  = (M + P - 1) / P where M > P, else 2 / (2 - (1 - 1 / M)^(P - M + 1))

of which the least over all t counts. S falls with t and the rest rises, so that between two points of a grid the lower
t and the S of the higher one are a bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Self

import numpy as np

from meshwright.catalog.axis_order import AxisOrder
from meshwright.costmodels.island_links import message_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import ACTIVATION_BYTES
from meshwright.costmodels.layout import AXIS_ORDERS, FloatArray, IntArray, LayoutTable, numbered
from meshwright.costmodels.pipeline_bubble import LayerSeconds
from meshwright.costmodels.pipeline_messages import message_s as message_inside_s
from meshwright.costmodels.predict import layer_times
from meshwright.costmodels.vocabulary import embedding_s, head_s
from meshwright.hardware.islands import Link
from meshwright.planner.layout.dominance import is_dominated, settings_of
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.space import space_of, taken
from meshwright.planner.mixed.alone import RICH
from meshwright.planner.mixed.shapes import Chain

LARGEST_MICRO_BATCH = 8
LARGEST_CONTEXT = 8
# Choices of expert and sequence parallelism to look at, of each island's other degrees.
ALIKE = 3
BISECTIONS = 40
GRID = (1.0, 1.01, 1.02, 1.04, 1.06, 1.08, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0, 3.0)
ROUNDING = 1e-9
FOREVER = 1e15
SHARED = ("data_parallel", "context_parallel", "context_method", "micro_batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An island (by number) of a chain and its side of all configurations: its rows of the table, [configurations].

    layer_s, shortest_s, embedding_s, head_s: seconds both ways of a layer of the kind that takes most in all, of which
    the model has `counted`, of its shortest layer, of the embedding and of the head, for one
    micro-batch. message_s: a message between its stages.
    """

    island: int
    job: Job
    layouts: LayoutTable
    counted: int
    layer_s: FloatArray
    shortest_s: FloatArray
    embedding_s: FloatArray
    head_s: FloatArray
    message_s: FloatArray

    @property
    def stages(self) -> IntArray:
        """Stages of the island, [configurations]."""
        return self.layouts.pipeline_parallel

    def take(self, rows: IntArray) -> Self:
        """Give some configurations."""
        return replace(
            self,
            layouts=self.layouts.take(rows),
            layer_s=self.layer_s[rows],
            shortest_s=self.shortest_s[rows],
            embedding_s=self.embedding_s[rows],
            head_s=self.head_s[rows],
            message_s=self.message_s[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Configurations:
    """The configurations of a chain, n of them.

    crossing_s: a message over the link behind each island but the last, [links, n]. buffered: it runs beside passes.
    busiest_s: what the busiest stage may take for a micro-batch, ascending from the least, [n, points]; the last is
    infinite. together_s: what all stages take together then, at least, [n, points].
    """

    members: tuple[Member, ...]
    crossing_s: FloatArray
    buffered: bool
    busiest_s: FloatArray
    together_s: FloatArray

    def __len__(self) -> int:
        return len(self.busiest_s)

    @property
    def stages(self) -> IntArray:
        """Stages in all, links among them where messages are buffered, [configurations]."""
        links = len(self.crossing_s) if self.buffered else 0
        return np.asarray(np.sum([member.stages for member in self.members], axis=0) + links)

    @property
    def sequences(self) -> IntArray:
        """Sequences of one micro-batch of all replicas, [configurations]."""
        layouts = self.members[0].layouts
        return layouts.data_parallel * layouts.micro_batch

    def bound_s(self, total: FloatArray) -> FloatArray:
        """Give the least seconds of a step of so many micro-batches, [configurations]."""
        m, p = total[:, np.newaxis], self.stages[:, np.newaxis]
        low_s, sum_s = self.busiest_s[:, :-1], self.together_s[:, 1:]
        left = (1.0 - 1.0 / m) ** np.maximum(p - m + 1, 0)
        passes = np.where(m > p, (m + p - 1) / p, 2.0 / (2.0 - left))
        turned_s = np.where(m > p + 1, np.maximum(m - p - 1, 0) * low_s + 2.0 * sum_s, 0.0)
        seconds: FloatArray = np.maximum(np.maximum(m * low_s, passes * sum_s), turned_s).min(axis=1)
        return seconds + self.members[0].job.stack.step_overhead


def configurations(
    chain: Chain, jobs: Sequence[Job], links: Sequence[Link], limits: Limits, *, share: float, below_s: float
) -> tuple[Configurations, ...]:
    """Give the configurations of a chain of jobs on an island each, with messages that are waited for, and buffered.

    Software that starts no messages between stages beside compute can't buffer them. Configurations are left out where
    it is plain that they take longer than `below_s` for a share of the batch.
    """
    rows = [_rows(job, limits) for job in jobs]
    keys = [list(zip(*(own[name].tolist() for name in SHARED), strict=True)) for own in rows]
    by_key: list[dict[tuple[int, ...], list[int]]] = []
    for own in keys:
        found: dict[tuple[int, ...], list[int]] = {}
        for number, key in enumerate(own):
            found.setdefault(key, []).append(number)
        by_key.append(found)
    joint = [key for key in by_key[0] if all(key in own for own in by_key[1:])]
    picked = np.array([each for key in joint for each in product(*(own[key] for own in by_key))], dtype=np.int64)
    picked = picked.reshape(-1, len(jobs))
    stages = np.sum([own["pipeline_parallel"][picked[:, i]] for i, own in enumerate(rows)], axis=0)
    picked = picked[stages <= len(jobs[0].model.layers)]
    kind = _longest_kind(jobs[0], space_of(_rich(jobs[0]), limits).table(rows[0]))
    members = tuple(
        _member(island, job, space_of(_rich(job), limits).table(taken(own, picked[:, position])), kind)
        for position, (island, job, own) in enumerate(zip(chain, jobs, rows, strict=True))
    )
    layouts, job = members[0].layouts, jobs[0]
    sent = ACTIVATION_BYTES * job.model.hidden * job.sequence_length * layouts.data_parallel * layouts.micro_batch
    crossing_s = np.array([[message_s(link, float(each)) for each in sent] for link in links])
    crossing_s = crossing_s.reshape(len(links), len(picked))
    made = []
    for buffered in (False, True) if job.stack.overlap_pipeline else (False,):
        sequences = layouts.data_parallel * layouts.micro_batch
        kept = np.flatnonzero(share / sequences * _mean_s(members, crossing_s, buffered=buffered) < below_s)
        held, crossed_s = tuple(member.take(kept) for member in members), crossing_s[:, kept]
        busiest_s, together_s = _bounds_s(held, crossed_s, buffered=buffered)
        made.append(
            Configurations(
                members=held,
                crossing_s=crossed_s,
                buffered=buffered,
                busiest_s=busiest_s,
                together_s=together_s,
            )
        )
    return tuple(made)


def _longest_kind(job: Job, layouts: LayoutTable) -> int:
    """Give the kind of layers that take most of all kinds, over some layouts."""
    kinds = [LayerSeconds.of(time) for time in layer_times(job, layouts)]
    counts = [job.model.kind_of_layer.count(kind) for kind in range(len(kinds))]
    total_s = [
        count * float(np.sum(kind.forward_s + kind.backward_s)) for count, kind in zip(counts, kinds, strict=True)
    ]
    return total_s.index(max(total_s))


def _rich(job: Job) -> Job:
    return replace(job, global_batch=RICH * job.cluster.devices)


def _rows(job: Job, limits: Limits) -> dict[str, IntArray]:
    """Give the branches of an island that a chain may have."""
    space = space_of(_rich(job), limits)
    rows = space.branches.rows
    size = rows["micro_batch"]
    kept = (size <= LARGEST_MICRO_BATCH) & (size & (size - 1) == 0)
    kept &= size * rows["data_parallel"] <= job.global_batch
    kept &= (rows["context_parallel"] <= LARGEST_CONTEXT) & (rows["tensor_parallel"] <= job.cluster.domain_devices)
    kept &= rows["axis_order"] == AXIS_ORDERS.index(AxisOrder.PIPELINE_OUTERMOST)
    rows = taken(rows, np.flatnonzero(kept))
    if not kept.any():
        return dict(rows)
    dominated = is_dominated(job, space.table(rows), settings_of(rows))
    rows = taken(rows, np.flatnonzero(~dominated))
    return dict(taken(rows, _quickest(job, space.table(rows))))


def _quickest(job: Job, layouts: LayoutTable) -> IntArray:
    """Give the rows with the quickest layers among those that differ in expert and sequence parallelism alone."""
    kinds = [LayerSeconds.of(time) for time in layer_times(job, layouts)]
    counts = [job.model.kind_of_layer.count(kind) for kind in range(len(kinds))]
    all_s = np.sum(
        [count * (kind.forward_s + kind.backward_s) for count, kind in zip(counts, kinds, strict=True)], axis=0
    )
    group = np.zeros(len(layouts), dtype=np.int64)
    for name in (*SHARED, "tensor_parallel", "pipeline_parallel"):
        _, group = numbered(group * (getattr(layouts, name).max(initial=0) + 1) + getattr(layouts, name))
    order = np.lexsort([np.broadcast_to(all_s, len(layouts)), group])
    first = np.searchsorted(group[order], group[order], side="left")
    return np.sort(order[np.arange(len(order)) - first < ALIKE])


def _member(island: int, job: Job, layouts: LayoutTable, kind: int) -> Member:
    kinds = [LayerSeconds.of(time) for time in layer_times(job, layouts)]
    each_s = [np.broadcast_to(own.forward_s + own.backward_s, len(layouts)) for own in kinds]
    return Member(
        island=island,
        job=job,
        layouts=layouts,
        counted=job.model.kind_of_layer.count(kind),
        layer_s=each_s[kind],
        shortest_s=np.min(each_s, axis=0),
        embedding_s=np.add(*embedding_s(job, layouts)),
        head_s=np.add(*head_s(job, layouts)),
        message_s=message_inside_s(job, layouts),
    )


def slowed_s(job: Job, message_s: FloatArray) -> FloatArray:
    """Give by how much a message beside a pass slows it."""
    return np.asarray((1.0 - 1.0 / job.cluster.device.calibration.contention) * message_s)


def _mean_s(members: Sequence[Member], crossing_s: FloatArray, *, buffered: bool) -> FloatArray:
    """Give what the busiest stage takes at least if layers could be cut, [configurations].

    The stages' (t - x_s) / c_s, none of which is negative as each has a layer of some kind, sum up to the layers.
    """
    layers = float(members[0].counted)
    held, rate = np.full(len(members[0].layouts), layers), np.zeros(len(members[0].layouts))
    for number, member in enumerate(members):
        extra_s = 2.0 * (member.stages - 1) * member.message_s
        for message in (*crossing_s[max(number - 1, 0) : number], *crossing_s[number : number + 1]):
            extra_s = extra_s + (slowed_s(member.job, message) if buffered else message)
        extra_s = extra_s + (member.embedding_s if number == 0 else 0.0)
        extra_s = extra_s + (member.head_s if number == len(members) - 1 else 0.0)
        held, rate = held + extra_s / member.layer_s, rate + member.stages / member.layer_s
    return np.asarray(held / rate)


def _bounds_s(members: Sequence[Member], crossing_s: FloatArray, *, buffered: bool) -> tuple[FloatArray, FloatArray]:
    """Give points of what the busiest stage takes, and the least that all take together then, [n, points]."""
    layers = members[0].counted
    each_s, extra_s, shortest_s = _stage_seconds(members, crossing_s, buffered=buffered)
    used = np.isfinite(each_s)
    least = (extra_s + shortest_s).max(axis=1, initial=0.0)
    low, high = least, least + layers * np.where(used, each_s, 0.0).max(axis=1, initial=0.0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        held = np.floor((middle[:, np.newaxis] - extra_s) / each_s * (1 + ROUNDING))
        enough = np.where(used, held, 0.0).sum(axis=1) >= layers
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    busiest_s = np.column_stack([*(low * way for way in GRID), np.full(len(low), np.inf)])
    order = np.argsort(each_s, axis=1, kind="stable")
    each_s, extra_s = (np.take_along_axis(values, order, axis=1) for values in (each_s, extra_s))
    together_s = np.empty(busiest_s.shape)
    for point in range(busiest_s.shape[1]):
        room = np.clip((np.minimum(busiest_s[:, point : point + 1], FOREVER) - extra_s) / each_s, 0.0, layers)
        own = np.diff(np.minimum(np.cumsum(room, axis=1), layers), axis=1, prepend=0.0)
        together_s[:, point] = extra_s.sum(axis=1) + (own * np.where(own > 0, each_s, 0.0)).sum(axis=1)
    return busiest_s, together_s


def _stage_seconds(
    members: Sequence[Member], crossing_s: FloatArray, *, buffered: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Give the seconds of a layer on each stage, of all else there, and of the shortest layer, [n, stages].

    Links that are like stages, and padding, have layers of infinite length; padding has nothing else.
    """
    count = len(members[0].layouts)
    total = np.sum([member.stages for member in members], axis=0) + (len(crossing_s) if buffered else 0)
    stage, rows = np.arange(int(total.max(initial=1))), np.arange(count)
    each_s, extra_s = np.full((count, len(stage)), np.inf), np.zeros((count, len(stage)))
    shortest_s = np.zeros((count, len(stage)))
    begin = np.zeros(count, dtype=np.int64)
    for number, member in enumerate(members):
        end = begin + member.stages
        own = (stage >= begin[:, np.newaxis]) & (stage < end[:, np.newaxis])
        each_s = np.where(own, member.layer_s[:, np.newaxis], each_s)
        shortest_s = np.where(own, member.shortest_s[:, np.newaxis], shortest_s)
        between = own & (stage > begin[:, np.newaxis])
        extra_s = extra_s + np.where(between, member.message_s[:, np.newaxis], 0.0)
        before_end = own & (stage < end[:, np.newaxis] - 1)
        extra_s = extra_s + np.where(before_end, member.message_s[:, np.newaxis], 0.0)
        for where, side_s in (
            (begin, crossing_s[number - 1 : number] if number else ()),
            (end - 1, crossing_s[number : number + 1]),
        ):
            for message_s_ in side_s:
                extra_s[rows, where] += slowed_s(member.job, message_s_) if buffered else message_s_
        if buffered and number < len(crossing_s):
            extra_s[rows, end] = 2.0 * crossing_s[number]
            end = end + 1
        begin = end
    rows = np.arange(count)
    extra_s[rows, 0] += members[0].embedding_s
    extra_s[rows, total - 1] += members[-1].head_s
    return each_s, extra_s, shortest_s
