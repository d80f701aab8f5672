"""The least that messages of ZeRO's shards and of replicas show in a step, for bounds of it.

m seconds of gathers and reductions run beside a micro-batch's passes of c seconds, which take max(m, c + (1 - 1 / q) m)
at least under contention q (costmodels/overlap.py). Rates are those of messages as large as the largest layer's with
embedding and head, which no message exceeds. What is sent once a step runs beside the first or the last pass likewise,
at the rates of a message of the whole model.

What is computed again on stages that have time left hides messages at no cost. So a bound that counts a busiest stage's
work adds only what shows beside endless work; what is sent once a step, beside all that a pass can be.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import SCHEDULES, FloatArray, LayoutTable
from meshwright.costmodels.overlap import exposed_s
from meshwright.costmodels.schedule.codes import SPLIT_BACKWARD
from meshwright.costmodels.state import StageParameters, layer_on_rank, vocabulary_on_rank
from meshwright.costmodels.state_messages import state_messages
from meshwright.planner.layout.needs import layer_counts

PUT_OFF = frozenset(SCHEDULES[code] for code in SPLIT_BACKWARD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Seconds of the whole model for one micro-batch, forward and backward, [layouts]."""

    forward_s: FloatArray
    backward_s: FloatArray


# Room that hides all that can be hidden.
ENDLESS = Work(forward_s=np.array(np.inf), backward_s=np.array(np.inf))


def whole_model(job: Job, layouts: LayoutTable) -> StageParameters:
    """Give the parameters of all stages together, [layouts, 1]."""
    total = vocabulary_on_rank(job, layouts)
    for count, layer in zip(layer_counts(job), job.model.layer_kinds, strict=True):
        own = layer_on_rank(job, layer, layouts)
        total = StageParameters(dense=total.dense + count * own.dense, experts=total.experts + count * own.experts)
    return total


def puts_off(job: Job) -> bool:
    """Tell whether any of the software's schedules puts weight gradients off."""
    return not set(job.stack.schedules).isdisjoint(PUT_OFF)


def room_beside(job: Job, work: Work) -> Work:
    """Give what messages run beside at most, where the work is no more than that."""
    if not puts_off(job):
        return work
    third_s = (work.forward_s + work.backward_s) / 3.0
    return Work(forward_s=np.maximum(work.forward_s, third_s), backward_s=np.maximum(work.backward_s, 2.0 * third_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardMessages:
    """Seconds of messages of shards and replicas of all stages, [twigs]: of each micro-batch, and once a step."""

    forward_s: FloatArray
    backward_s: FloatArray
    first_s: FloatArray
    last_s: FloatArray


def shard_messages(job: Job, twigs: LayoutTable) -> ShardMessages:
    """Give the least seconds of the messages of a twig's layouts, whatever their stages."""
    forward_s, backward_s = _sharding_messages_s(job, twigs)
    once = state_messages(job, twigs, whole_model(job, twigs), np.ones((len(twigs), 1), dtype=np.int64))
    return ShardMessages(
        forward_s=forward_s,
        backward_s=backward_s,
        first_s=once.step_gather_s[:, 0],
        last_s=once.step_reduction_s[:, 0],
    )


def shown_s(job: Job, twigs: LayoutTable, messages: ShardMessages, room: Work, *, total: FloatArray) -> FloatArray:
    """Give what messages add to a step of all stages together, each micro-batch's beside so much work, [twigs]."""
    each_s, longest_s = _shown_s(job, twigs, messages, room)
    return (total - 1.0) * each_s + longest_s


def least_shown_s(
    job: Job, twigs: LayoutTable, messages: ShardMessages, most: Work, *, total: FloatArray
) -> FloatArray:
    """Give the same beside any work, of which a stage has no more than `most` for the micro-batch that has the rest."""
    each_s, least_s = _shown_s(job, twigs, messages, ENDLESS)
    longest_s = least_s if puts_off(job) else _shown_s(job, twigs, messages, most)[1]
    return (total - 1.0) * each_s + longest_s


def _shown_s(job: Job, twigs: LayoutTable, messages: ShardMessages, room: Work) -> tuple[FloatArray, FloatArray]:
    """Give what shows of messages in a micro-batch, and in the ones that also have what is sent once a step."""
    contention = job.cluster.device.calibration.contention

    def shown(each_s: FloatArray, once_s: FloatArray, room_s: FloatArray) -> tuple[FloatArray, FloatArray]:
        return exposed_s(each_s, room_s, contention), exposed_s(each_s + once_s, room_s, contention)

    forward = messages.forward_s, messages.forward_s + messages.first_s
    if job.stack.overlap_parameters:
        forward = shown(messages.forward_s, messages.first_s, room.forward_s)
    # Where nothing hides them, those of later stages may hide behind the first one's last passes.
    last_s = np.where(twigs.pipeline_parallel == 1, messages.last_s, 0.0)
    backward = messages.backward_s, messages.backward_s + last_s
    if job.stack.overlap_gradients:
        backward = shown(messages.backward_s, messages.last_s, room.backward_s)
    return np.asarray(forward[0] + backward[0]), np.asarray(forward[1] + backward[1])


def _sharding_messages_s(job: Job, twigs: LayoutTable) -> tuple[FloatArray, FloatArray]:
    """Give the least seconds of gathers forward, and of gathers and reductions backward, of all stages, [twigs].

    Of n parameters in messages of the largest layer's size, as many as there are layers, scaled to the model's own n.
    """
    whole, ends = whole_model(job, twigs), vocabulary_on_rank(job, twigs)
    layers = np.full((len(twigs), 1), sum(layer_counts(job)))
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
