"""Messages of context parallelism, by which queries of one device meet the keys and values of others.

Of C context ranks with K bytes of keys and values each, forward:

    ring               K, C - 1 times to the next rank                       beside the attention core
    bidirectional ring half of K each way, C - 1 times                       beside the attention core
    all-gather         C K gathered                                          before the core
    Ulysses            queries, keys, values and outputs, all to all         before and behind the core
    hybrid             Ulysses over neighbours, then a ring over the rest

Backward, gradients of keys and values go round behind them; gathered ones are gathered again and their gradients
reduced and scattered; Ulysses exchanges gradients as it did values. A ring passes keys on as far as queries look: to
the ranks of a window or a chunk. Under Ulysses, key heads that are fewer than its ranks are sent once for each rank.

Layers of linear attention need no keys of others but the sum of k^T v over all tokens before: each rank gathers the
states of all, heads / tensor x d x d_v values a sequence each, once forward and, their gradients, once backward,
beside the core, whatever the method of the layers with softmax and however long the sequences. Under Ulysses they
exchange heads as the others do.

Sources: rings, arXiv 2310.01889; all-gather, arXiv 2407.21783, section 3.3.2; Ulysses, arXiv 2309.14509; hybrid, arXiv
2405.07719; states, arXiv 2502.07563.
"""

import numpy as np

from meshwright.catalog.context_method import ContextMethod
from meshwright.costmodels.attention import key_value_bytes, ring_blocks
from meshwright.costmodels.collectives import Group, all_gather_s, all_to_all_s, passed_round_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import ACTIVATION_BYTES, ALL_GATHER, ULYSSES, tokens_of, ulysses_ranks
from meshwright.costmodels.layout import CONTEXT_METHODS, BoolArray, FloatArray, LayoutTable
from meshwright.costmodels.linear_attention import linear_state_bytes
from meshwright.costmodels.overlap import exposed_s
from meshwright.costmodels.transformer import Attention

BIDIRECTIONAL_RING = CONTEXT_METHODS.index(ContextMethod.BIDIRECTIONAL_RING)

# Ulysses exchanges queries, keys, values and outputs, one after another.
ULYSSES_MESSAGES = 4
# Keys and values are gathered one after the other.
GATHERS = 2


def context_communication_s(
    job: Job, attention: Attention, layouts: LayoutTable, core_s: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Give the seconds by which they lengthen a layer, forward and backward, [layouts], beside a core of `core_s`."""
    if attention.linear is not None:
        return _linear_s(job, attention, layouts, core_s)
    own_bytes = key_value_bytes(job, attention, layouts)
    passed_s = _ring_s(job, attention, layouts, own_bytes)
    gathered_s = _gathered_s(job, layouts, own_bytes)
    exchanged_s = _exchanged_s(job, attention, layouts, own_bytes)
    contention = job.cluster.device.calibration.contention
    forward = exchanged_s + gathered_s + exposed_s(passed_s, core_s[0], contention)
    backward = exchanged_s + 2.0 * gathered_s + exposed_s(2.0 * passed_s, core_s[1], contention)
    several = layouts.context_parallel > 1
    return np.where(several, forward, 0.0), np.where(several, backward, 0.0)


def context_messages_s(job: Job, attention: Attention, layouts: LayoutTable) -> FloatArray:
    """Give the seconds of both passes' messages, [layouts], with nothing to run beside."""
    alone = np.zeros(len(layouts))
    if layouts.context_parallel.max(initial=1) == 1:
        return alone
    return np.asarray(sum(context_communication_s(job, attention, layouts, (alone, alone))))


def context_launches(attention: Attention, layouts: LayoutTable) -> FloatArray:
    """Count the messages that the host launches for a layer's forward or backward pass, [layouts]."""
    ulysses = ulysses_ranks(layouts)
    ring = layouts.context_parallel // ulysses
    ways = np.where(layouts.context_method == BIDIRECTIONAL_RING, 2, 1)
    passed = np.where(layouts.context_method == ALL_GATHER, GATHERS, np.where(ring > 1, ways * ring, 0))
    launched = passed + np.where(ulysses > 1, ULYSSES_MESSAGES, 0)
    if attention.linear is not None:
        launched = np.where(layouts.context_method == ULYSSES, ULYSSES_MESSAGES, 1)
    return np.where(layouts.context_parallel > 1, launched, 0).astype(float)


def gathered_bytes(job: Job, attention: Attention, layouts: LayoutTable) -> FloatArray:
    """Give the bytes of whole sequences' keys and values, and of their gradients, in a backward pass, [layouts].

    Of linear attention those of all ranks' states' gradients.
    """
    if attention.linear is not None:
        return np.where(_gathers_states(layouts), _gathered_state_bytes(attention, layouts), 0.0)
    whole = 2.0 * layouts.context_parallel * key_value_bytes(job, attention, layouts)
    return np.where((layouts.context_method == ALL_GATHER) & (layouts.context_parallel > 1), whole, 0.0)


def _linear_s(
    job: Job, attention: Attention, layouts: LayoutTable, core_s: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    group = Group(size=layouts.context_parallel, stride=layouts.tensor_parallel)
    states_s = all_gather_s(job.cluster, group, _gathered_state_bytes(attention, layouts))
    exchanged_s = _exchanged_s(job, attention, layouts, key_value_bytes(job, attention, layouts))
    contention, gathers = job.cluster.device.calibration.contention, _gathers_states(layouts)
    exchanged_s = np.where(layouts.context_parallel > 1, exchanged_s, 0.0)
    forward, backward = (np.where(gathers, exposed_s(states_s, room_s, contention), exchanged_s) for room_s in core_s)
    return forward, backward


def _gathers_states(layouts: LayoutTable) -> BoolArray:
    """Tell where layers of linear attention gather states, [layouts]."""
    return np.asarray((layouts.context_parallel > 1) & (layouts.context_method != ULYSSES))


def _gathered_state_bytes(attention: Attention, layouts: LayoutTable) -> FloatArray:
    return layouts.context_parallel * linear_state_bytes(attention, layouts)


def _ring_s(job: Job, attention: Attention, layouts: LayoutTable, own_bytes: FloatArray) -> FloatArray:
    reached = ring_blocks(job, attention, layouts)
    ring = Group(size=reached.astype(np.int64), stride=layouts.tensor_parallel * ulysses_ranks(layouts))
    both_ways = layouts.context_method == BIDIRECTIONAL_RING
    return passed_round_s(job.cluster, ring, own_bytes * reached, both_ways=both_ways)


def _gathered_s(job: Job, layouts: LayoutTable, own_bytes: FloatArray) -> FloatArray:
    group = Group(size=layouts.context_parallel, stride=layouts.tensor_parallel)
    seconds = GATHERS * all_gather_s(job.cluster, group, own_bytes * layouts.context_parallel / GATHERS)
    return np.where(layouts.context_method == ALL_GATHER, seconds, 0.0)


def _exchanged_s(job: Job, attention: Attention, layouts: LayoutTable, own_bytes: FloatArray) -> FloatArray:
    group = Group(size=ulysses_ranks(layouts), stride=layouts.tensor_parallel)
    widths = attention.heads / layouts.tensor_parallel * (attention.head_dim + attention.value_head_dim)
    each_bytes = (own_bytes + ACTIVATION_BYTES * tokens_of(job, layouts).computed * widths) / ULYSSES_MESSAGES
    return ULYSSES_MESSAGES * all_to_all_s(job.cluster, group, each_bytes)
