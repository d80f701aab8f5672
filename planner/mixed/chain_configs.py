"""Pipelines through several islands: the degrees that they can have, with a bound of the step of each.

A chain is islands in the order in which a pipeline passes them. All stages have the same replicas, context ranks and
micro-batch, so that each rank has one to send to; tensor and expert groups are each island's own. Island i has P_i
stages of n_i / (tensor_i context data) devices each; layers are dealt to all P = sum P_i of them.

A message over a link is waited for by the stage that it is for, or runs beside its passes (`buffered`): then the link
is like a stage between two others that holds no layers and takes a message's time each way, those before it have one
more micro-batch in flight, and the message only slows the passes beside it (overlap.py).

Bound: with c_s the seconds of a layer on stage s, of the kind of which L layers take most of all kinds, and x_s what
else it has for each micro-batch (messages that it waits for, embedding, head), n of them take x_s + n c_s. Of R_s bytes
that a device has, such a layer takes a_s, states and what it keeps of the micro-batches in flight, so that of more than
R_s / a_s some are computed again, each of which frees d_s bytes in f_s seconds:

    x_s + n c_s + max(n a_s - R_s, 0) f_s / d_s      and     n <= R_s / (a_s - d_s)

By t seconds a stage is done with so many whole layers at most. The least t by which all are done, and each stage has a
layer, is what the busiest stage takes at least. If it takes t, all stages together take S(t) at least: the x_s, and
those layers where they are shortest, as many as fit in t. Of the 1F1B schedule with M micro-batches
(planner/layout/bound.py),

    T >= max( M t,  (M - P - 1) t + 2 S(t) where M > P + 1,  k S(t) ) + overhead
    k  = (M + P - 1) / P where M > P, else 2 / (2 - (1 - 1 / M)^(P - M + 1))

of which the least over all t counts. S falls with t and the rest rises, so that between two points of a grid the lower
t and the S of the higher one are a bound. Another is that of chain_weights.py, by weights of the chains of passes. An
end of a step takes no less than the optimizer's o_s seconds a layer where layers are dealt as is best for that alone,
L / (sum over s of 1 / o_s).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from meshwright.costmodels.island_links import message_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import ACTIVATION_BYTES
from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.hardware.islands import Link
from meshwright.planner.mixed.chain_members import SHARED, Member
from meshwright.planner.mixed.chain_weights import StageSeconds, Weighed

BISECTIONS = 24
TINY_S = 1e-12
GRID = (1.0, 1.01, 1.02, 1.04, 1.06, 1.08, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0, 3.0)
ROUNDING = 1e-9
FOREVER = 1e15


@dataclass(frozen=True, slots=True, kw_only=True)
class Configurations:
    """The configurations of a chain, n of them.

    crossing_s: a message over the link behind each island but the last, [links, n]. buffered: it runs beside passes.
    busiest_s: what the busiest stage may take for a micro-batch, ascending from the least, [n, points]; the last is
    infinite. together_s: what all stages take together then, at least, [n, points]. seconds: of the stages one by one;
    end_s: of the end of a step at least, [n].
    """

    members: tuple[Member, ...]
    crossing_s: FloatArray
    buffered: bool
    busiest_s: FloatArray
    together_s: FloatArray
    seconds: StageSeconds
    end_s: FloatArray

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

    def passes(self, total: FloatArray) -> FloatArray:
        """Give k of above, how often a step of so many micro-batches takes what all stages take together, [n]."""
        stages = self.stages
        left = (1.0 - 1.0 / total) ** np.maximum(stages - total + 1, 0)
        return np.where(total > stages, (total + stages - 1) / stages, 2.0 / (2.0 - left))

    def bound_s(self, total: FloatArray) -> FloatArray:
        """Give the least seconds of a step of so many micro-batches, [configurations]."""
        m, p = total[:, np.newaxis], self.stages[:, np.newaxis]
        low_s, sum_s = self.busiest_s[:, :-1], self.together_s[:, 1:]
        turned_s = np.where(m > p + 1, np.maximum(m - p - 1, 0) * low_s + 2.0 * sum_s, 0.0)
        passes_s = self.passes(total)[:, np.newaxis] * sum_s
        seconds: FloatArray = np.maximum(np.maximum(m * low_s, passes_s), turned_s).min(axis=1)
        return seconds + self.end_s + self.members[0].job.stack.step_overhead

    def weighed(self, rows: IntArray, total: FloatArray) -> Weighed:
        """Give what a bound by weights of the chains of passes takes of some rows."""
        return Weighed(
            seconds=self.seconds.take(rows),
            total=total[rows],
            width=self.stages[rows],
            layers=self.members[0].counted,
            beside_s=self.end_s[rows] + self.members[0].job.stack.step_overhead,
        )


def configurations(
    members: Sequence[Member], links: Sequence[Link], *, share: float, below_s: float, in_full: bool = True
) -> tuple[Configurations, ...]:
    """Give the configurations of a chain, with messages that are waited for, and buffered.

    Software that starts no messages between stages beside compute can't buffer them. Configurations are left out where
    it is plain that they don't fit, or take longer than `below_s` for a share of the batch.

    Args:
        members: the chain's islands in order, with all of their choices.
        links: between each two that follow one another.
        share: sequences of a step.
        below_s: a step time that is of no use any more.
        in_full: bounds are asked for no fewer sequences than the share.

    """
    jobs = [member.job for member in members]
    picked = _joint(members)
    stages = np.sum([member.stages[picked[:, i]] for i, member in enumerate(members)], axis=0)
    picked = picked[stages <= len(jobs[0].model.layers)]
    own = tuple(member.take(picked[:, position]) for position, member in enumerate(members))
    layouts, job = own[0].layouts, jobs[0]
    sequences = layouts.data_parallel * layouts.micro_batch
    sent = ACTIVATION_BYTES * job.model.hidden * job.sequence_length * sequences
    crossing_s = np.array([[message_s(link, float(each)) for each in sent] for link in links])
    crossing_s = crossing_s.reshape(len(links), len(picked))
    return tuple(
        _of_way(own, crossing_s, buffered=buffered, share=share, below_s=below_s, in_full=in_full)
        for buffered in ((False, True) if job.stack.overlap_pipeline else (False,))
    )


def _of_way(
    members: Sequence[Member],
    crossing_s: FloatArray,
    *,
    buffered: bool,
    share: float,
    below_s: float,
    in_full: bool,
) -> Configurations:
    """Give the configurations of one way of messages that fit, and that may take less than `below_s`."""
    layouts, counted = members[0].layouts, members[0].counted
    sequences = layouts.data_parallel * layouts.micro_batch
    kept = np.flatnonzero(share / sequences * _mean_s(members, crossing_s, buffered=buffered) < below_s)
    held, crossed_s = [member.take(kept) for member in members], crossing_s[:, kept]
    total = np.ceil(share / sequences[kept]) if in_full else np.ones(len(kept))
    seconds = _stage_seconds(held, crossed_s, np.maximum(total, 1.0), buffered=buffered)
    busiest_s, together_s = _bounds_s(seconds, layers=counted)
    fits = np.flatnonzero(np.isfinite(busiest_s[:, 0]))
    fitting = tuple(member.take(fits) for member in held)
    return Configurations(
        members=fitting,
        crossing_s=crossed_s[:, fits],
        buffered=buffered,
        busiest_s=busiest_s[fits],
        together_s=together_s[fits],
        seconds=seconds.take(fits),
        end_s=_end_s(fitting, layers=counted),
    )


def _joint(members: Sequence[Member]) -> IntArray:
    """Give the rows of each member that go together, which are alike in what all stages share, [n, members]."""
    by_key: list[dict[tuple[int, ...], list[int]]] = []
    for member in members:
        found: dict[tuple[int, ...], list[int]] = {}
        columns = (getattr(member.layouts, name).tolist() for name in SHARED)
        for number, key in enumerate(zip(*columns, strict=True)):
            found.setdefault(key, []).append(number)
        by_key.append(found)
    joint = [key for key in by_key[0] if all(key in own for own in by_key[1:])]
    picked = np.array([each for key in joint for each in product(*(own[key] for own in by_key))], dtype=np.int64)
    return picked.reshape(-1, len(members))


def slowed_s(job: Job, crossed_s: FloatArray) -> FloatArray:
    """Give by how much a message beside a pass slows it."""
    return np.asarray((1.0 - 1.0 / job.cluster.device.calibration.contention) * crossed_s)


def _waited_s(job: Job, crossed_s: FloatArray, *, buffered: bool) -> FloatArray:
    """Give what a message over a link adds to the stage at either end."""
    return slowed_s(job, crossed_s) if buffered else crossed_s


def _mean_s(members: Sequence[Member], crossing_s: FloatArray, *, buffered: bool) -> FloatArray:
    """Give what the busiest stage takes at least if layers could be cut, [configurations].

    The stages' (t - x_s) / c_s, none of which is negative as each has a layer of some kind, sum up to the layers.
    """
    layers = float(members[0].counted)
    held, rate = np.full(len(members[0].layouts), layers), np.zeros(len(members[0].layouts))
    for number, member in enumerate(members):
        extra_s = 2.0 * (member.stages - 1) * member.message_s
        for crossed_s in (*crossing_s[max(number - 1, 0) : number], *crossing_s[number : number + 1]):
            extra_s = extra_s + _waited_s(member.job, crossed_s, buffered=buffered)
        extra_s = extra_s + (member.embedding_s if number == 0 else 0.0)
        extra_s = extra_s + (member.head_s if number == len(members) - 1 else 0.0)
        held, rate = held + extra_s / member.layer_s, rate + member.stages / member.layer_s
    return np.asarray(held / rate)


def _bounds_s(stages: StageSeconds, *, layers: int) -> tuple[FloatArray, FloatArray]:
    """Give points of what the busiest stage takes, and the least that all take together then, [n, points].

    Points are infinite where the layers don't fit.
    """
    least = (stages.extra_s + stages.shortest_s).max(axis=1, initial=0.0)
    steps = np.where(stages.holds, stages.each_s + stages.again_s, 0.0)
    low, high = least, least + layers * steps.max(axis=1, initial=0.0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        enough = np.floor(stages.layers_by(middle) * (1 + ROUNDING)).sum(axis=1) >= layers
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    fits = np.floor(np.minimum(stages.most, layers) * (1 + ROUNDING)).sum(axis=1) >= layers
    low = np.where(fits, low, np.inf)
    busiest_s = np.column_stack([*(low * way for way in GRID), np.full(len(low), np.inf)])
    each_s = np.concatenate([stages.each_s, stages.each_s + stages.again_s], axis=1)
    order = np.argsort(each_s, axis=1, kind="stable")
    each_s = np.take_along_axis(each_s, order, axis=1)
    together_s = np.empty(busiest_s.shape)
    for point in range(busiest_s.shape[1]):
        room = np.clip(stages.layers_by(np.minimum(busiest_s[:, point], FOREVER)), 0.0, layers)
        kept = np.minimum(room, stages.kept)
        room = np.take_along_axis(np.concatenate([kept, room - kept], axis=1), order, axis=1)
        own = np.diff(np.minimum(np.cumsum(room, axis=1), layers), axis=1, prepend=0.0)
        together_s[:, point] = stages.extra_s.sum(axis=1) + (own * np.where(own > 0, each_s, 0.0)).sum(axis=1)
    return busiest_s, together_s


def _stage_seconds(
    members: Sequence[Member], crossing_s: FloatArray, total: FloatArray, *, buffered: bool
) -> StageSeconds:
    """Give what stages of configurations take."""
    count = len(members[0].layouts)
    width = np.sum([member.stages for member in members], axis=0) + (len(crossing_s) if buffered else 0)
    stage, rows = np.arange(int(width.max(initial=1))), np.arange(count)
    in_flight = np.clip(width[:, np.newaxis] - stage, 1.0, total[:, np.newaxis])
    each_s, again_s = np.ones((count, len(stage))), np.zeros((count, len(stage)))
    kept, most = np.zeros((count, len(stage))), np.zeros((count, len(stage)))
    extra_s, shortest_s = np.zeros((count, len(stage))), np.zeros((count, len(stage)))
    holds = np.zeros((count, len(stage)), dtype=bool)
    begin = np.zeros(count, dtype=np.int64)
    for number, member in enumerate(members):
        end = begin + member.stages
        own = (stage >= begin[:, np.newaxis]) & (stage < end[:, np.newaxis])
        holds |= own
        each_s = np.where(own, member.layer_s[:, np.newaxis], each_s)
        shortest_s = np.where(own, member.shortest_s[:, np.newaxis], shortest_s)
        for values, found in zip((again_s, kept, most), _memory(member, in_flight), strict=True):
            np.copyto(values, found, where=own)
        for neighbour in (stage > begin[:, np.newaxis], stage < end[:, np.newaxis] - 1):
            extra_s = extra_s + np.where(own & neighbour, member.message_s[:, np.newaxis], 0.0)
        for where, side_s in (
            (begin, crossing_s[number - 1 : number] if number else ()),
            (end - 1, crossing_s[number : number + 1]),
        ):
            for crossed_s in side_s:
                extra_s[rows, where] += _waited_s(member.job, crossed_s, buffered=buffered)
        if buffered and number < len(crossing_s):
            extra_s[rows, end] = 2.0 * crossing_s[number]
            end = end + 1
        begin = end
    extra_s[rows, 0] += members[0].embedding_s
    extra_s[rows, width - 1] += members[-1].head_s
    return StageSeconds(
        holds=holds,
        each_s=each_s,
        again_s=again_s,
        kept=kept,
        most=most,
        extra_s=extra_s,
        shortest_s=shortest_s,
    )


def _end_s(members: Sequence[Member], *, layers: int) -> FloatArray:
    """Give the seconds of the optimizer at the end of a step at least, [n]."""
    rates = np.sum([member.stages / np.maximum(member.optimizer_s, TINY_S) for member in members], axis=0)
    return np.asarray(layers / rates)


def _memory(member: Member, in_flight: FloatArray) -> tuple[FloatArray, ...]:
    """Give what a layer beyond memory takes more, how many are kept whole, and how many fit, [n, stages]."""
    room, state = member.room_bytes[:, np.newaxis], member.state_bytes[:, np.newaxis]
    whole = state + in_flight * member.kept_bytes[:, np.newaxis]
    least = state + in_flight * np.minimum(member.least_bytes, member.kept_bytes)[:, np.newaxis]
    freed = whole - least
    again_s = np.divide(whole * member.again_s[:, np.newaxis], freed, out=np.zeros(whole.shape), where=freed > 0)
    return again_s, room / whole, room / least
