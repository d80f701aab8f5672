"""Lower bounds of the step time: no layout of a branch is faster, and none of a twig.

A branch is a mesh with its sequence and expert parallelism and its micro-batch; a twig is a branch with its ZeRO. What
they leave open is the schedule, the split of layers over stages and what is computed again. With M micro-batches, P
stages, and w seconds for a micro-batch's way through the whole model (layers with their messages, embedding, head),

    T >= M w / P + messages between stages + step overhead

since the busiest stage does no less than the mean one. Of a twig five more things can't be avoided:

    gradients  are added up from micro-batch to micro-batch, those of all layers, which is a part of w (accumulation.py)
    memory     Of B bytes of a device, a layer of kind k on a stage that holds H micro-batches takes s_k + H a_k, states
               and activations of each micro-batch. Over what a layer of the heaviest kind takes, S + H A, that is a
               share of u_k = min(s_k / S, a_k / A) at least, so that all layers are sum u_k of such shares, and all
               stages have room for C = sum of B / (S + H A). What has no room has to be computed again: that keeps
               a_km < a_k, in r_km seconds a micro-batch, and frees g_km = H (a_k - a_km) / (S + H A) at the largest H,
               so that x = max(sum u_k - C, 0) min (r_km / g_km) seconds are added to w. Where there is no room for
               layers that keep the least they can, nothing fits.
    messages   m seconds of ZeRO's gathers and reductions run beside a micro-batch's passes of c seconds, which take
               max(m, c + (1 - 1 / q) m) at least under contention q (overlap.py). That is convex and grows with both,
               so stages take no less in the mean than the mean stage does. A bound by the busiest stage, or by a chain
               through all, counts (1 - 1 / q) m only: what else shows of m may hide beside work of stages that have
               time left, for which such a bound has no more. Where weight gradients are put off, messages run beside a
               third of what a micro-batch takes, and two (predict.py), if that is more. exposure.py has the messages.
    copies     into and out of the buffers of those messages (packing.py), beside which nothing runs, are of all
               parameters, of the mean stage 1 / P of them
    optimizer  works on all states, the mean stage on 1 / P of them

Schedules of one chunk a stage also wait for one another. In 1F1B and GPipe, whatever the seconds t_s of their stages,

    T >= sum t + (M - 1) t_k - sum over s > k of (t_k - t_s)     for every stage k, where M > P

which is the chain of passes (schedule/chains.py) that turns on the last stage both times. A mean of these over k, with
weights that fall from stage to stage, counts each t_s alike: T >= (M + P - 1) sum t / P. And with k the busiest stage,
t_k - t_s summed over all s is at most P t_k - sum t: T >= (M - P - 1) t_k + 2 sum t. Where M <= P, the chain of stage
P - M + 1 is sum t and the t_s from there on, and stages k up to P - M run all forward passes before any backward pass:
T >= sum over s <= k of t_s + (M - 1) t_k. Weights that count each t_s alike give T >= 2 sum t / (2 - q) with
q = (1 - 1 / M) ^ (P - M + 1).

Under zero-bubble schedules whose stages wait for one another at the end of a step, stage k works M t_k seconds after
the first micro-batch has come to it through the others: T >= F_k + M t_k with F_k the f_s summed over s < k. Where
forward passes are a share phi of all work or more, t_k <= (T - phi G_k) / M for G_k, the t_s summed over s < k, so that
G_k+1 <= G_k (1 - phi / M) + T / M, and with z = (1 - phi / M) ^ P

    T >= phi sum t / (1 - z)

The embedding is left out, whose forward pass is a smaller share, and so is what is computed again, but that x seconds
of it are x (1 - phi / M) ^ (P - 1) of such sums at least, wherever they are.

H is that of schedule/held.py: schedules that run chunks in rounds hold min(M, P - s) or more, 2 P - 1 at most; GPipe
and those that fold the model as many on each stage, and DualPipe has each layer twice. x is that of the best of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, Pass, layer_time
from meshwright.costmodels.layout import SCHEDULES, FloatArray, IntArray, LayoutTable
from meshwright.costmodels.packing import packing_s
from meshwright.costmodels.pipeline_messages import pipeline_communication_s
from meshwright.costmodels.predict import distinct_layer_rows
from meshwright.costmodels.schedule import micro_batches
from meshwright.costmodels.schedule.codes import DUAL
from meshwright.costmodels.state import layer_on_rank
from meshwright.costmodels.synchronisation import optimizer_s, tied_embedding_s
from meshwright.costmodels.vocabulary import embedding_s, head_s
from meshwright.planner.layout.busiest import least_busiest_s
from meshwright.planner.layout.exposure import (
    Work,
    least_shown_s,
    room_beside,
    shard_messages,
    shown_s,
    whole_model,
)
from meshwright.planner.layout.needs import (
    LayerNeeds,
    accumulated_s,
    heaviest_of,
    layer_counts,
    layer_needs,
    room_bytes,
)

ROUNDING = 1e-9
# Schedules that place chunk c on stage c mod P, so that the last one has the head.
IN_ROUNDS = {
    Schedule.GPIPE,
    Schedule.ONE_F_ONE_B,
    Schedule.INTERLEAVED,
    Schedule.ZERO_BUBBLE_H1,
    Schedule.ZERO_BUBBLE_2P,
}
DUAL_SCHEDULES = tuple(SCHEDULES[code] for code in DUAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLayers:
    """How many layers a stage has at most, [layouts]: the last one, MTP's among them, and the others."""

    inner: FloatArray
    last: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The micro-batches that stages hold under some schedules, [layouts].

    pipeline, total: stages, and micro-batches of a step.
    each: the least that any stage holds, if they are alike; None where stage s holds min(total, pipeline - s) at least.
    most: the most that any holds. copies: how often a layer is on a stage.
    """

    pipeline: IntArray
    total: FloatArray
    each: FloatArray | None
    most: FloatArray
    copies: int

    def capacity(
        self, room: FloatArray, states: FloatArray, kept: FloatArray, *, most: StageLayers | None
    ) -> FloatArray:
        """Give for how many layers of such states and kept activations all stages have room and time, [layouts]."""
        if self.each is not None:
            here = room / (states + self.each * kept) / self.copies
            return self.pipeline * (here if most is None else np.minimum(here, np.maximum(most.inner, most.last)))
        total = np.zeros(len(states))
        for remaining in range(1, int(self.pipeline.max(initial=1)) + 1):
            here = room / (states + np.minimum(self.total, remaining) * kept)
            if most is not None:
                here = np.minimum(here, most.last if remaining == 1 else most.inner)
            total = total + np.where(remaining <= self.pipeline, here, 0.0)
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class _TwigParts:
    """Seconds of the whole model for one micro-batch, and of a step what isn't that, [twigs].

    rest_s, least_rest_s: beside no more than the work, and beside as much as one may think of.
    again_s: what of the work is computed again.
    """

    work_s: FloatArray
    rest_s: FloatArray
    least_rest_s: FloatArray
    again_s: FloatArray


def branch_bound_s(job: Job, branches: LayoutTable) -> FloatArray:
    """Give the least step time that a branch's work leaves possible, [branches]; any schedule and ZeRO will do."""
    work = _work(job, branches)
    passes = micro_batches(job.global_batch, branches) / branches.pipeline_parallel
    return passes * (work.forward_s + work.backward_s) + _pipeline_s(job, branches) + job.stack.step_overhead


def twig_bound_s(job: Job, twigs: LayoutTable, *, memory_limit_bytes: int) -> FloatArray:
    """Give the least step time that a twig's work, memory, messages, copies and optimizer leave possible, [twigs].

    That is infinity where nothing fits in `memory_limit_bytes`. Schedule and recomputation of the table are ignored.
    """
    parts = _twig_parts(job, twigs, memory_limit_bytes, most=None)
    total = micro_batches(job.global_batch, twigs)
    bound_s = total * parts.work_s / twigs.pipeline_parallel + parts.rest_s
    if set(job.stack.schedules) <= IN_ROUNDS and not job.stack.vocabulary_parallel:
        bound_s = np.maximum(bound_s, total * _least_busiest_s(job, twigs) + parts.least_rest_s)
    return bound_s


def cut_bound_s(
    job: Job, twigs: LayoutTable, *, memory_limit_bytes: int, zero_bubble: bool, below_s: float
) -> FloatArray:
    """Give the least step time of the schedules of one chunk a stage, of those below `below_s`, [twigs].

    That is of GPipe and 1F1B, or of those of `zero_bubble`, with stages of at least one layer each.
    """
    most = None
    if np.isfinite(below_s):
        most = _layers_in_time(job, twigs, in_turn=not zero_bubble, below_s=below_s)
    parts = _twig_parts(job, twigs, memory_limit_bytes, most=most)
    return _one_chunk_s(job, twigs, parts, _least_busiest_s(job, twigs), zero_bubble=zero_bubble)


def mode_bound_s(
    job: Job, layouts: LayoutTable, *, memory_limit_bytes: int, zero_bubble: bool, below_s: float
) -> FloatArray:
    """Give the same for one schedule and one mode of recomputation each, closer, [layouts]; `below_s` is finite.

    Infinity where no step is below `below_s`.
    """
    most = _layers_in_time(job, layouts, in_turn=not zero_bubble, below_s=below_s)
    parts = _twig_parts(job, layouts, memory_limit_bytes, most=most)
    busiest_s = least_busiest_s(job, layouts, memory_limit_bytes=memory_limit_bytes, below_s=below_s)
    return _one_chunk_s(job, layouts, parts, busiest_s, zero_bubble=zero_bubble)


def _one_chunk_s(
    job: Job, twigs: LayoutTable, parts: _TwigParts, busiest_s: FloatArray, *, zero_bubble: bool
) -> FloatArray:
    """Give the least step time of schedules of one chunk a stage whose busiest stage takes so long or longer."""
    total, pipeline = micro_batches(job.global_batch, twigs), twigs.pipeline_parallel
    if zero_bubble:
        law_s = total * np.maximum(parts.work_s / pipeline, busiest_s)
        if job.stack.steps_together:
            law_s = np.maximum(law_s, _filled_s(job, twigs, parts))
        return law_s + parts.least_rest_s
    filled = total > pipeline
    left = (1.0 - 1.0 / total) ** np.where(filled, 0, pipeline - total + 1)
    passes = np.where(filled, (total + pipeline - 1) / pipeline, 2.0 / (2.0 - left))
    more = total > pipeline + 1
    in_turn_s = np.multiply(total - pipeline - 1, busiest_s, out=np.zeros(len(twigs)), where=more) + 2.0 * parts.work_s
    busy_s = np.maximum(total * busiest_s, np.where(more, in_turn_s, 0.0))
    return np.maximum(passes * parts.work_s + parts.rest_s, busy_s + parts.least_rest_s)


def _filled_s(job: Job, twigs: LayoutTable, parts: _TwigParts) -> FloatArray:
    """Give phi sum t / (1 - z) of above, [twigs]."""
    distinct, back = distinct_layer_rows(twigs)
    head = [part[back] for part in head_s(job, distinct)]
    seconds, share = np.add(*head), head[0] / np.add(*head)
    for count, layer in zip(layer_counts(job), job.model.layer_kinds, strict=True):
        time = layer_time(job, layer, distinct)
        forward_s = _pass_s(job, time.forward)[back]
        backward_s = _pass_s(job, time.backward)[back] + accumulated_s(job, twigs, layer_on_rank(job, layer, twigs))
        seconds = seconds + count * (forward_s + backward_s)
        share = np.minimum(share, forward_s / (forward_s + backward_s))
    total, pipeline = micro_batches(job.global_batch, twigs), twigs.pipeline_parallel
    left = 1.0 - share / total
    again_s = np.where(np.isfinite(parts.again_s), parts.again_s, 0.0) * left ** (pipeline - 1)
    return np.asarray(share * (seconds + again_s) / (1.0 - left**pipeline))


def _twig_parts(job: Job, twigs: LayoutTable, limit: int, *, most: StageLayers | None) -> _TwigParts:
    twigs = replace(twigs, schedule=np.full(len(twigs), SCHEDULES.index(Schedule.ONE_F_ONE_B)))
    total = micro_batches(job.global_batch, twigs)
    bare, needs = _twig_work(job, twigs), tuple(layer_needs(job, twigs))
    again_s = _again_s(job, twigs, needs, limit, most=most)
    work = replace(bare, backward_s=bare.backward_s + again_s)
    most_again_s = np.sum([need.count * np.max(need.again_s, axis=0) for need in needs], axis=0)
    step_s = optimizer_s(job, twigs, whole_model(job, twigs))[:, 0]
    copied_s = np.add(*packing_s(job, twigs, whole_model(job, twigs), total=total))[:, 0]
    once_s = (copied_s + step_s) / twigs.pipeline_parallel + _pipeline_s(job, twigs) + job.stack.step_overhead
    if set(job.stack.schedules) <= IN_ROUNDS and not job.stack.vocabulary_parallel:
        once_s = once_s + tied_embedding_s(job, twigs)
    messages = shard_messages(job, twigs)
    exposed_s = shown_s(job, twigs, messages, room_beside(job, work), total=total)
    least_s = least_shown_s(job, twigs, messages, replace(bare, backward_s=bare.backward_s + most_again_s), total=total)
    return _TwigParts(
        work_s=work.forward_s + work.backward_s,
        rest_s=once_s + exposed_s / twigs.pipeline_parallel,
        least_rest_s=once_s + least_s / twigs.pipeline_parallel,
        again_s=again_s,
    )


def _least_busiest_s(job: Job, twigs: LayoutTable) -> FloatArray:
    """Give the least that the busiest stage can take for a micro-batch, [twigs], however layers are cut.

    Layers are whole: of the n of the most frequent kind, t seconds each, P stages of at most T seconds hold
    (P - 2) floor(T / t) + floor((T - e) / t) + floor((T - h) / t), with embedding and head (and MTP's layers) of e and
    h seconds on two of them, none below 0. Were layers not whole, T could be T0, the sum of n t and those ends that T0
    is above, over as many stages; in T0 + t all layers have room. That holds more where T is k t, k t + e or k t + h
    for a whole k, once each between the two, so that the least T is one of these. Nor is it less than either end with a
    layer.
    """
    model = job.model
    each_s = _layers_s(job, twigs)
    counts = [model.kind_of_layer.count(kind) for kind in range(len(model.layer_kinds))]
    count = max(counts)
    layer_s, shortest_s = each_s[counts.index(count)], np.min(each_s, axis=0)
    distinct, back = distinct_layer_rows(twigs)
    embedding, head = (np.add(*both)[back] for both in (embedding_s(job, distinct), head_s(job, distinct)))
    head = head + model.mtp_layers * each_s[model.kind_of_layer[-1]]
    pipeline = twigs.pipeline_parallel
    relaxed_s = _relaxed_busiest_s(count * layer_s, np.minimum(embedding, head), np.maximum(embedding, head), pipeline)
    least_s = np.full(len(twigs), np.inf)
    for end in (0.0, embedding, head):
        seconds = np.maximum(np.ceil((relaxed_s - end) / layer_s - ROUNDING), 0.0) * layer_s + end
        # A little more, so that a whole number of layers isn't lost to rounding.
        held = [np.floor(np.maximum(seconds - own, 0.0) / layer_s + ROUNDING) for own in (0.0, embedding, head)]
        enough = (pipeline - 2) * held[0] + held[1] + held[2] >= count
        least_s = np.where(enough, np.minimum(least_s, seconds), least_s)
    least_s = np.maximum(least_s, np.maximum(embedding, head) + shortest_s)
    return np.where(np.isfinite(least_s) & (pipeline > 1), least_s, 0.0)


def _relaxed_busiest_s(
    layers_s: FloatArray, lighter_s: FloatArray, heavier_s: FloatArray, pipeline: IntArray
) -> FloatArray:
    """Give T0 of above, [twigs], where all layers take `layers_s`, and the two ends the other two."""
    both_s = (layers_s + lighter_s + heavier_s) / pipeline
    lighter_alone_s = (layers_s + lighter_s) / np.maximum(pipeline - 1, 1)
    neither_s = layers_s / np.maximum(pipeline - 2, 1)
    one_s = np.where(lighter_alone_s >= lighter_s, lighter_alone_s, neither_s)
    return np.where(both_s >= heavier_s, both_s, one_s)


def _layers_s(job: Job, twigs: LayoutTable) -> list[FloatArray]:
    """Give the seconds of a layer of each kind for one micro-batch, [twigs], less what DualPipe may hide."""
    distinct, back = distinct_layer_rows(twigs)
    each_s = []
    for layer in job.model.layer_kinds:
        time = layer_time(job, layer, distinct)
        added_s = accumulated_s(job, twigs, layer_on_rank(job, layer, twigs))
        each_s.append((_pass_s(job, time.forward) + _pass_s(job, time.backward))[back] + added_s)
    return each_s


def _pass_s(job: Job, part: Pass) -> FloatArray:
    hides = not set(DUAL_SCHEDULES).isdisjoint(job.stack.schedules)
    hidden_s = part[Cause.EXPERT] + part[Cause.HOST] if hides else 0.0
    return np.asarray(sum(part.values()) - hidden_s)


def _work(job: Job, layouts: LayoutTable) -> Work:
    """Add up the parts of the model, less what pairs of DualPipe may hide: experts' messages and the host's time."""
    distinct, back = distinct_layer_rows(layouts)
    embedding, head = embedding_s(job, distinct), head_s(job, distinct)
    ways = [embedding[way] + head[way] for way in range(2)]
    for count, layer in zip(layer_counts(job), job.model.layer_kinds, strict=True):
        time = layer_time(job, layer, distinct)
        for way, part in enumerate((time.forward, time.backward)):
            ways[way] = ways[way] + count * _pass_s(job, part)
    return Work(forward_s=ways[0][back], backward_s=ways[1][back])


def _twig_work(job: Job, twigs: LayoutTable) -> Work:
    """Give the same, with the adding up of gradients, which ZeRO decides."""
    work = _work(job, twigs)
    return replace(work, backward_s=work.backward_s + accumulated_s(job, twigs, whole_model(job, twigs)))


def _pipeline_s(job: Job, layouts: LayoutTable) -> FloatArray:
    """Give the least seconds of a step's messages between stages: those of one chunk a stage, or what can't be hidden.

    V chunks send V times as often; beside compute they cost (1 - 1 / contention) of that at least. Two chunks are the
    fewest, and DualPipe passes each but M / 2 times.
    """
    plain = replace(layouts, schedule=np.full(len(layouts), SCHEDULES.index(Schedule.ONE_F_ONE_B)))
    seconds, _ = pipeline_communication_s(job, plain, micro_batches(job.global_batch, plain), np.ones(len(plain)))
    hides = not set(DUAL_SCHEDULES).isdisjoint(job.stack.schedules)
    slowed = 1.0 - 1.0 / job.cluster.device.calibration.contention
    share = slowed if hides else 2.0 * slowed if job.stack.overlap_pipeline else 1.0
    return min(share, 1.0) * seconds


def _again_s(
    job: Job, twigs: LayoutTable, needs: tuple[LayerNeeds, ...], limit: int, *, most: StageLayers | None
) -> FloatArray:
    """Give x of above, the seconds of a micro-batch that layers are computed again, [twigs]; infinity if none fits.

    Where stages have no time for more layers of the heaviest kind than `most`, only those are counted.
    """
    heaviest = heaviest_of(needs)
    if most is not None:
        needs, heaviest = (needs[heaviest],), 0
    room = room_bytes(job, twigs, limit)
    again_s = np.full(len(twigs), np.inf)
    for held in _held(job, twigs):
        again_s = np.minimum(again_s, _again_if_held_s(needs, heaviest, room, held, most=most))
    return again_s


def _layers_in_time(job: Job, twigs: LayoutTable, *, in_turn: bool, below_s: float) -> StageLayers:
    """Give how many layers of the heaviest kind stages have time for in a step below `below_s`."""
    total, pipeline = micro_batches(job.global_batch, twigs), twigs.pipeline_parallel
    work = _twig_work(job, twigs)
    busiest_s = below_s / total
    if in_turn:
        spread_s = below_s - 2.0 * (work.forward_s + work.backward_s)
        pairs = np.maximum(total - pipeline - 1, 1)
        busiest_s = np.where(total > pipeline + 1, np.minimum(busiest_s, spread_s / pairs), busiest_s)
    each_s = _layers_s(job, twigs)
    layer_s = each_s[heaviest_of(tuple(layer_needs(job, twigs)))]
    distinct, back = distinct_layer_rows(twigs)
    ends_s = np.add(*head_s(job, distinct))[back] + job.model.mtp_layers * each_s[job.model.kind_of_layer[-1]]
    inner, last = (np.floor(np.maximum(own_s, 0.0) / layer_s + ROUNDING) for own_s in (busiest_s, busiest_s - ends_s))
    return StageLayers(inner=inner, last=last + job.model.mtp_layers)


def _again_if_held_s(
    needs: tuple[LayerNeeds, ...], heaviest: int, room: FloatArray, held: Held, *, most: StageLayers | None
) -> FloatArray:
    """Give the same for schedules that hold so many micro-batches."""
    states, kept = needs[heaviest].state_bytes, needs[heaviest].kept_bytes[0]
    missing = _shares(needs, heaviest, least=False) - held.capacity(room, states, kept, most=most)
    nowhere = np.full(len(states), np.inf)
    each_s = nowhere
    for need in needs:
        for kept_bytes, again_s in zip(need.kept_bytes[1:], need.again_s[1:], strict=True):
            freed = np.maximum(held.most * (need.kept_bytes[0] - kept_bytes) / (states + held.most * kept), 0.0)
            each_s = np.minimum(each_s, np.divide(again_s, freed, out=nowhere.copy(), where=freed > 0))
    least = np.min(needs[heaviest].kept_bytes, axis=0)
    never = _shares(needs, heaviest, least=True) > held.capacity(room, states, least, most=None)
    again_s = np.multiply(missing, each_s, out=np.zeros(len(states)), where=missing > 0)
    return np.where(never, np.inf, again_s)


def _shares(needs: tuple[LayerNeeds, ...], heaviest: int, *, least: bool) -> FloatArray:
    """Give how many layers of the heaviest kind all layers are, [twigs], where they keep everything or the `least`."""
    total: FloatArray = np.sum([need.count * _share(need, needs[heaviest], least=least) for need in needs], axis=0)
    return total


def _share(need: LayerNeeds, heaviest: LayerNeeds, *, least: bool) -> FloatArray:
    """Give u_k of above, [twigs], where layers keep everything or the `least`."""
    kept, reference = (np.min(one.kept_bytes, axis=0) if least else one.kept_bytes[0] for one in (need, heaviest))
    return np.minimum(need.state_bytes / heaviest.state_bytes, kept / reference)


def _held(job: Job, twigs: LayoutTable) -> Iterator[Held]:
    """Give what the stack's schedules hold, those that run chunks in rounds together."""
    total, pipeline = micro_batches(job.global_batch, twigs), twigs.pipeline_parallel
    yield Held(pipeline=pipeline, total=total, each=None, most=np.minimum(total, 2 * pipeline - 1), copies=1)
    folded = {
        Schedule.GPIPE: (total, 1),
        Schedule.V_HALF: (pipeline // 2 + 1, 1),
        Schedule.V_MIN: ((pipeline + 1) // 3 + 1, 1),
        Schedule.ZERO_BUBBLE_V: (pipeline, 1),
        Schedule.DUAL_PIPE: (pipeline / 2, 2),
        Schedule.DUAL_PIPE_V: (pipeline, 1),
    }
    for schedule in job.stack.schedules:
        if schedule in folded:
            each, copies = folded[schedule]
            least = np.minimum(total, each)
            most = np.minimum(total, each + (schedule in DUAL_SCHEDULES))
            yield Held(pipeline=pipeline, total=total, each=least, most=most, copies=copies)
