"""The core of linear attention, as Lightning Attention-2 computes it (arXiv 2401.04658, section 3.2, algorithms 1, 2).

Within a block of B tokens a query meets keys as in any causal attention, without softmax. Of all blocks before it it
meets a state, the sum of k^T v, of d x d_v a head: products of a token with that, and of its key and value into it,
are 2 d d_v operations each. Backward, three products of a pair are as wide as keys and two as wide as values, since
scores are computed again; across blocks there are five: the state again, its gradient, and from both the gradients of
queries, of keys and of values.

    pairs               floor(s / B) B^2 / 2 + rest^2 / 2
    operations          heads (2 pairs (d + d_v) + 4 s d d_v)               forward
                        heads (2 pairs (3 d + 2 d_v) + 10 s d d_v)          backward

Nothing bounds it but the matrix units, at the device's level of attention: there is no softmax, no row of blocks
that starts and ends, and no generation of kernels that a stack may lag behind. Gradients are added up in the order of
the blocks, so that it is deterministic as it is. Blocks on the diagonal are computed whole, so twice their pairs; and
tiles wait for one another as those of other attention do (attention.py).

So its time goes with the tokens, where that of softmax goes with their square: a token's products over heads of 128 in
blocks of 256 are those of causal softmax over 768 tokens.
"""

from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import ACTIVATION_BYTES, tokens_of
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.matmul import wide_precision
from meshwright.costmodels.tiles import TILE_ROWS, misalignment, triangle_pairs
from meshwright.costmodels.transformer import Attention, LinearAttention

# Operations with a state, of d d_v each: of a query with it and of a key with a value; backward, five of them.
STATE_FLOP = (4, 10)
# A block on the diagonal is a square of which half are pairs.
SQUARES = 2.0


def linear_core_flop(attention: Attention, linear: LinearAttention, sequence_length: int) -> tuple[float, float]:
    """Count the operations of one sequence's core, forward and backward, all heads."""
    return _flop(attention, sequence_length, triangle_pairs(sequence_length, linear.block))


def linear_core_s(
    job: Job, attention: Attention, linear: LinearAttention, layouts: LayoutTable
) -> tuple[FloatArray, FloatArray]:
    """Give the seconds of one micro-batch's core, forward and backward, [layouts]."""
    device, calibration = job.cluster.device, job.cluster.device.calibration
    peak = device.peak(wide_precision(job.precision)) / misalignment(attention.head_dim)
    squares = SQUARES * triangle_pairs(job.sequence_length, linear.block)
    forward, backward = _flop(attention, job.sequence_length, squares)
    rows = tokens_of(job, layouts).computed * attention.heads / layouts.tensor_parallel
    sequences = layouts.micro_batch / (layouts.tensor_parallel * layouts.context_parallel)
    sequences = sequences * (1.0 + TILE_ROWS * device.compute_units / rows)
    latency_s = calibration.kernel_latency
    return (
        sequences * forward / (peak * calibration.attention_forward) + latency_s,
        sequences * backward / (peak * calibration.attention_backward) + latency_s,
    )


def linear_state_bytes(attention: Attention, layouts: LayoutTable) -> FloatArray:
    """Give the bytes of a micro-batch's states of one tensor rank's heads, [layouts], however long its sequences."""
    heads = layouts.micro_batch * attention.heads / layouts.tensor_parallel
    return ACTIVATION_BYTES * heads * attention.head_dim * attention.value_head_dim


def _flop(attention: Attention, sequence_length: int, pairs: float) -> tuple[float, float]:
    """Count the operations over so many pairs of a sequence and over its states, forward and backward, all heads."""
    keys, values = attention.head_dim, attention.value_head_dim
    states = float(sequence_length * keys * values)
    return (
        attention.heads * (2.0 * pairs * (keys + values) + STATE_FLOP[0] * states),
        attention.heads * (2.0 * pairs * (3 * keys + 2 * values) + STATE_FLOP[1] * states),
    )
