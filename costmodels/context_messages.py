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

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextMessages:
    """Seconds of a layer's messages, forward and backward, each of shape [layouts].

    waited_s: what the core waits for, or what waits for the core.
    passed_s: what runs beside the core.
    """

    waited_s: tuple[FloatArray, FloatArray]
    passed_s: tuple[FloatArray, FloatArray]

    def exposed_s(self, contention: float, core_s: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Give by how much they lengthen both passes, beside a core of `core_s` that they slow."""
        forward, backward = (
            waited_s + exposed_s(passed_s, room_s, contention)
            for waited_s, passed_s, room_s in zip(self.waited_s, self.passed_s, core_s, strict=True)
        )
        return forward, backward


def context_messages(job: Job, attention: Attention, layouts: LayoutTable) -> ContextMessages:
    """Give the messages of a layer's micro-batch."""
    nothing = np.zeros(len(layouts))
    if layouts.context_parallel.max(initial=1) == 1:
        return ContextMessages(waited_s=(nothing, nothing), passed_s=(nothing, nothing))
    own_bytes = key_value_bytes(job, attention, layouts)
    exchanged_s = _exchanged_s(job, attention, layouts, own_bytes)
    if attention.linear is not None:
        gathers = _gathers_states(layouts)
        group = Group(size=layouts.context_parallel, stride=layouts.tensor_parallel)
        states_s = all_gather_s(job.cluster, group, _gathered_state_bytes(attention, layouts))
        waited_s, passed_s = (np.where(gathers, 0.0, exchanged_s),) * 2, (np.where(gathers, states_s, 0.0),) * 2
    else:
        passed, gathered_s = _ring_s(job, attention, layouts, own_bytes), _gathered_s(job, layouts, own_bytes)
        waited_s = (exchanged_s + gathered_s, exchanged_s + 2.0 * gathered_s)
        passed_s = (passed, 2.0 * passed)
    several = layouts.context_parallel > 1
    forward, backward = (
        tuple(np.where(several, seconds, 0.0) for seconds in both) for both in zip(waited_s, passed_s, strict=True)
    )
    return ContextMessages(waited_s=(forward[0], backward[0]), passed_s=(forward[1], backward[1]))


def context_communication_s(
    job: Job, attention: Attention, layouts: LayoutTable, core_s: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Give the seconds by which they lengthen a layer, forward and backward, [layouts], beside a core of `core_s`."""
    return context_messages(job, attention, layouts).exposed_s(job.cluster.device.calibration.contention, core_s)


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
