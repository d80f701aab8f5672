"""Lower bounds of the step time: no layout of a branch is faster, and none of a twig.

A branch is a mesh with its sequence and expert parallelism and its micro-batch; a twig is a branch with its ZeRO. What
they leave open is the schedule, the split of layers over stages and what is computed again. With M micro-batches, P
stages, and w seconds for a micro-batch's way through the whole model (layers with their messages, embedding, head),

    T >= M w / P + messages between stages + step overhead

since the busiest stage does no less than the mean one. Of a twig three more things can't be avoided:

    memory     Of B bytes of a device, a layer of kind k on a stage that holds H micro-batches takes s_k + H a_k, states
               and activations of each micro-batch. Over what a layer of the heaviest kind takes, S + H A, that is a
               share of u_k = min(s_k / S, a_k / A) at least, so that all layers are sum u_k of such shares, and all
               stages have room for C = sum of B / (S + H A). What has no room has to be computed again: that keeps
               a_km < a_k, in r_km seconds a micro-batch, and frees g_km = H (a_k - a_km) / (S + H A) at the largest H,
               so that x = max(sum u_k - C, 0) min (r_km / g_km) seconds are added to w. Where there is no room for
               layers that keep the least they can, nothing fits.
    messages   m seconds of ZeRO's gathers and reductions run beside a micro-batch's passes of c seconds, which take
               max(m, c + (1 - 1 / q) m) at least under contention q (overlap.py). That is convex and grows with both,
               so stages take no less in the mean than the mean stage does. Rates are those of messages as large as the
               largest layer's with embedding and head, which no message exceeds.
    optimizer  works on all states, the mean stage on 1 / P of them

H is that of schedule/held.py: schedules that run chunks in rounds hold min(M, P - s) or more, 2 P - 1 at most; GPipe
and those that fold the model as many on each stage, and DualPipe has each layer twice. x is that of the best of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.activations import layer_activations
from meshwright.costmodels.backward_peak import loss_bytes
from meshwright.costmodels.device_memory import outside_bytes
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, layer_time
from meshwright.costmodels.layout import RECOMPUTES, SCHEDULES, FloatArray, IntArray, LayoutTable
from meshwright.costmodels.overlap import exposed_s
from meshwright.costmodels.pipeline_messages import pipeline_communication_s
from meshwright.costmodels.predict import distinct_layer_rows
from meshwright.costmodels.schedule import micro_batches
from meshwright.costmodels.schedule.codes import DUAL
from meshwright.costmodels.state import StageParameters, layer_on_rank, state_bytes, vocabulary_on_rank
from meshwright.costmodels.state_messages import state_messages
from meshwright.costmodels.synchronisation import optimizer_s
from meshwright.costmodels.vocabulary import embedding_s, head_s

DUAL_SCHEDULES = tuple(SCHEDULES[code] for code in DUAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Seconds of the whole model for one micro-batch, forward and backward, [layouts]."""

    forward_s: FloatArray
    backward_s: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNeeds:
    """What a layer of one kind takes, [layouts].

    count: how many the model has. state_bytes: of its states. kept_bytes, again_s: what it keeps of a micro-batch, and
    how long computing the rest again takes, by RECOMPUTES.
    """

    count: int
    state_bytes: FloatArray
    kept_bytes: tuple[FloatArray, ...]
    again_s: tuple[FloatArray, ...]


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

    def capacity(self, room_bytes: FloatArray, states: FloatArray, kept: FloatArray) -> FloatArray:
        """Give for how many layers of such states and kept activations all stages have room, [layouts]."""
        if self.each is not None:
            return self.pipeline * room_bytes / (states + self.each * kept) / self.copies
        room = np.zeros(len(states))
        for remaining in range(1, int(self.pipeline.max(initial=1)) + 1):
            here = room_bytes / (states + np.minimum(self.total, remaining) * kept)
            room = room + np.where(remaining <= self.pipeline, here, 0.0)
        return room


def branch_bound_s(job: Job, branches: LayoutTable) -> FloatArray:
    """Give the least step time that a branch's work leaves possible, [branches]; any schedule and ZeRO will do."""
    work = _work(job, branches)
    passes = micro_batches(job.global_batch, branches) / branches.pipeline_parallel
    return passes * (work.forward_s + work.backward_s) + _pipeline_s(job, branches) + job.stack.step_overhead


def twig_bound_s(job: Job, twigs: LayoutTable, *, memory_limit_bytes: int) -> FloatArray:
    """Give the least step time that a twig's work, memory, messages and optimizer leave possible, [twigs].

    That is infinity where nothing fits in `memory_limit_bytes`. Schedule and recomputation of the table are ignored.
    """
    twigs = replace(twigs, schedule=np.full(len(twigs), SCHEDULES.index(Schedule.ONE_F_ONE_B)))
    total = micro_batches(job.global_batch, twigs)
    work = _work(job, twigs)
    work = replace(work, backward_s=work.backward_s + _again_s(job, twigs, memory_limit_bytes))
    micro_batch_s = work.forward_s + work.backward_s + _exposed_s(job, twigs, work)
    step_s = optimizer_s(job, twigs, _whole_model(job, twigs))[:, 0]
    share_s = (total * micro_batch_s + step_s) / twigs.pipeline_parallel
    return share_s + _pipeline_s(job, twigs) + job.stack.step_overhead


def _counts(job: Job) -> list[int]:
    """Count the layers of each kind; MTP modules are layers of the last one, as in stage_table.py."""
    model = job.model
    counts = [model.kind_of_layer.count(kind) for kind in range(len(model.layer_kinds))]
    counts[model.kind_of_layer[-1]] += model.mtp_layers
    return counts


def _work(job: Job, layouts: LayoutTable) -> Work:
    """Add up the parts of the model, less what pairs of DualPipe may hide: experts' messages and the host's time."""
    distinct, back = distinct_layer_rows(layouts)
    embedding, head = embedding_s(job, distinct), head_s(job, distinct)
    ways = [embedding[way] + head[way] for way in range(2)]
    hides = not set(DUAL_SCHEDULES).isdisjoint(job.stack.schedules)
    for count, layer in zip(_counts(job), job.model.layer_kinds, strict=True):
        time = layer_time(job, layer, distinct)
        for way, part in enumerate((time.forward, time.backward)):
            hidden_s = part[Cause.EXPERT] + part[Cause.HOST] if hides else 0.0
            ways[way] = ways[way] + count * (sum(part.values()) - hidden_s)
    return Work(forward_s=ways[0][back], backward_s=ways[1][back])


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


def _whole_model(job: Job, layouts: LayoutTable) -> StageParameters:
    """Give the parameters of all stages together, [layouts, 1]."""
    total = vocabulary_on_rank(job, layouts)
    for count, layer in zip(_counts(job), job.model.layer_kinds, strict=True):
        own = layer_on_rank(job, layer, layouts)
        total = StageParameters(dense=total.dense + count * own.dense, experts=total.experts + count * own.experts)
    return total


def _again_s(job: Job, twigs: LayoutTable, limit: int) -> FloatArray:
    """Give x of above, the seconds of a micro-batch that layers are computed again, [twigs]; infinity if none fits."""
    needs = tuple(_needs(job, twigs))
    heaviest = max(range(len(needs)), key=lambda kind: float(needs[kind].state_bytes.sum()))
    room_bytes = _room_bytes(job, twigs, limit)
    again_s = np.full(len(twigs), np.inf)
    for held in _held(job, twigs):
        again_s = np.minimum(again_s, _again_if_held_s(needs, heaviest, room_bytes, held))
    return again_s


def _again_if_held_s(needs: tuple[LayerNeeds, ...], heaviest: int, room_bytes: FloatArray, held: Held) -> FloatArray:
    """Give the same for schedules that hold so many micro-batches."""
    states, kept = needs[heaviest].state_bytes, needs[heaviest].kept_bytes[0]
    missing = _shares(needs, heaviest, least=False) - held.capacity(room_bytes, states, kept)
    nowhere = np.full(len(states), np.inf)
    each_s = nowhere
    for need in needs:
        for kept_bytes, again_s in zip(need.kept_bytes[1:], need.again_s[1:], strict=True):
            freed = np.maximum(held.most * (need.kept_bytes[0] - kept_bytes) / (states + held.most * kept), 0.0)
            each_s = np.minimum(each_s, np.divide(again_s, freed, out=nowhere.copy(), where=freed > 0))
    least = np.min(needs[heaviest].kept_bytes, axis=0)
    never = _shares(needs, heaviest, least=True) > held.capacity(room_bytes, states, least)
    again_s = np.multiply(missing, each_s, out=np.zeros(len(states)), where=missing > 0)
    return np.where(never, np.inf, again_s)


def _needs(job: Job, twigs: LayoutTable) -> Iterator[LayerNeeds]:
    distinct, back = distinct_layer_rows(twigs)
    recomputed = [replace(distinct, recompute=np.full(len(distinct), code)) for code in range(len(RECOMPUTES))]
    for count, layer in zip(_counts(job), job.model.layer_kinds, strict=True):
        yield LayerNeeds(
            count=count,
            state_bytes=_lasting_bytes(job, twigs, layer_on_rank(job, layer, twigs)),
            kept_bytes=tuple(layer_activations(job, layer, table).kept[back] for table in recomputed),
            again_s=tuple(
                np.asarray(sum(layer_time(job, layer, table).recompute.values()))[back] for table in recomputed
            ),
        )


def _lasting_bytes(job: Job, twigs: LayoutTable, parameters: StageParameters) -> FloatArray:
    """Give the bytes of states that are there in the backward pass too, [twigs]."""
    states = state_bytes(job, twigs, parameters)
    total: FloatArray = np.sum([held for name, held in states.items() if name != "step_gradients"], axis=0)[:, 0]
    return total


def _shares(needs: tuple[LayerNeeds, ...], heaviest: int, *, least: bool) -> FloatArray:
    """Give how many layers of the heaviest kind all layers are, [twigs], where they keep everything or the `least`."""

    def kept(need: LayerNeeds) -> FloatArray:
        return np.min(need.kept_bytes, axis=0) if least else need.kept_bytes[0]

    reference = needs[heaviest]
    return np.asarray(
        sum(
            need.count * np.minimum(need.state_bytes / reference.state_bytes, kept(need) / kept(reference))
            for need in needs
        )
    )


def _room_bytes(job: Job, twigs: LayoutTable, limit: int) -> FloatArray:
    """Give what a device has for layers, [twigs]; without a pipeline it also has the vocabulary and the loss."""
    allocated = (limit - outside_bytes(job, twigs)) / (1.0 + job.stack.allocator_slack)
    room = allocated - job.cluster.device.calibration.workspace
    ends = _lasting_bytes(job, twigs, vocabulary_on_rank(job, twigs)) + loss_bytes(job, twigs)
    return np.maximum(np.where(twigs.pipeline_parallel == 1, room - ends, room), 0.0)


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


def _exposed_s(job: Job, twigs: LayoutTable, work: Work) -> FloatArray:
    """Give the least that ZeRO's messages of a micro-batch add to the passes of all stages together, [twigs]."""
    contention = job.cluster.device.calibration.contention
    forward_s, backward_s = _sharding_messages_s(job, twigs)
    total = forward_s + backward_s
    if job.stack.overlap_parameters:
        total = total - forward_s + exposed_s(forward_s, work.forward_s, contention)
    if job.stack.overlap_gradients:
        total = total - backward_s + exposed_s(backward_s, work.backward_s, contention)
    return total


def _sharding_messages_s(job: Job, twigs: LayoutTable) -> tuple[FloatArray, FloatArray]:
    """Give the least seconds of gathers forward, and of gathers and reductions backward, of all stages, [twigs].

    Of n parameters in messages of the largest layer's size, as many as there are layers, scaled to the model's own n.
    """
    whole, ends = _whole_model(job, twigs), vocabulary_on_rank(job, twigs)
    layers = np.full((len(twigs), 1), sum(_counts(job)))
    own = [layer_on_rank(job, layer, twigs) for layer in job.model.layer_kinds]
    forward_s, backward_s = np.zeros(len(twigs)), np.zeros(len(twigs))
    nothing = np.zeros((len(twigs), 1))
    for count, largest, is_dense in (
        (whole.dense, ends.dense + np.max([each.dense for each in own], axis=0), True),
        (whole.experts, np.max([each.experts for each in own], axis=0), False),
    ):
        if not largest.any():
            continue
        many = layers * largest
        parameters = StageParameters(dense=many if is_dense else nothing, experts=nothing if is_dense else many)
        messages = state_messages(job, twigs, parameters, layers)
        share = (count / many)[:, 0]
        forward_s = forward_s + share * messages.forward_gather_s[:, 0]
        backward_s = backward_s + share * (messages.backward_gather_s + messages.reduction_s)[:, 0]
    return forward_s, backward_s
