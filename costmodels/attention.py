"""Time of the attention core: scores, softmax and the weighted sum of values.

Fused (flash) attention: each pair of a query and a key costs 2 (d + d_v) operations of the matrix units forward, d and
d_v the widths of a key's and of a value's head, and 2 (3 d + 2 d_v) backward, since scores are computed again (Dao
2023, arXiv 2307.08691, section 3.1). It also costs an exponential, and vector operations around it, whatever the
width, so that narrow heads are bound by the softmax. The two run beside each other, but not perfectly; as with products
and memory the root of the sum of squares joins them, and the device's level holds for both alike:

    t_products = operations / peak                t_softmax = pairs (1 / exponentials + steps / lanes)
    t          = sqrt(t_products^2 + t_softmax^2) / level

Steps are 2 forward (scale and shift, maximum) and 3 backward (scale and shift, two for the gradient of the score); sums
and casts are left out, for with them heads of 64 come out slower than measured. Backward, five tiles of operands share
the on-chip store: beyond heads of 128 the tile of keys shrinks as heads grow, and operands are loaded the more often,
(1 + d / 128) / 2 times as often for a tile that was square.

So heads of 64 have 0.74, 0.61 and 0.71 of the forward rate of heads of 128 on H100, B200 and B300; by medians of three
libraries each (aiconfigurator-core 0.12.0) 0.77 to 0.82, 0.58 to 0.66 and 0.65 to 0.74. Backward, heads of 192 with
values of 128 have 0.79 of it on A100 and 0.83 on B200; measured 0.80 and 0.77 (SimuMax 4dcaae5), and on B200 0.79 to
0.87 (flash-attention, pull requests 2270 and 2280).

Two things keep it from the rate of long sequences over many heads:

- length: blocks on the diagonal are half empty, and each row of blocks has a start and an end, so that s keys reach
  s / (s + half_length) of the rate;
- waves: query rows are dealt to the compute units in tiles of 128, of unequal work under a causal mask, so that units
  run dry for about as long as one tile takes: r rows of all heads on u units take 1 + 128 u / r times as long.

On 2,700 forward passes over heads of 128 measured on A100, H100, H200, B200, B300, GB200 and GB300
(aiconfigurator-core 0.12.0) the law has a median error of 11 to 15 % and a 90 % quantile of 27 to 37 %; without the
waves that is 31 to 39 %.

A ring of context ranks works on one half block of keys after another, of s / (2 r) each, r its ranks, which balances
causal work, and adds up its output in fp32. Keys go only as far as a window or a chunk makes queries look.

The backward pass adds up query gradients in whatever order blocks finish; a deterministic one makes them wait for each
other, or runs older kernels, at a share of the rate that the device's calibration tells.

Unfused: two batched products over the full square, and the score matrix in memory. The causal softmax reads the lower
triangle and writes the square; backward it reads two triangles and writes a square. Dropout reads and writes the square
again, with a byte of mask (Korthikanti et al. 2022, section 4.1, counts the same tensors). The fused softmax works on
four score matrices at once; where a device's aren't a multiple of four it falls back to a chain of fp32 kernels
(Megatron-LM, fused_softmax.py).

Linear attention has no softmax and a law of its own, linear_attention.py.
"""

import math

import numpy as np

from meshwright.catalog.precision import Precision
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import ACTIVATION_BYTES, attended_kv_heads, ring_ranks, tokens_of
from meshwright.costmodels.layout import BoolArray, FloatArray, LayoutTable
from meshwright.costmodels.linear_attention import linear_core_flop, linear_core_s
from meshwright.costmodels.matmul import Matmul, matmul_time_s, wide_precision
from meshwright.costmodels.tiles import TILE_ROWS, misalignment, triangle_pairs
from meshwright.costmodels.transformer import Attention
from meshwright.hardware.device import Device

# Vector operations beside the exponential of each score, forward and backward.
SOFTMAX_STEPS = (2, 3)
# Widest heads for which the backward pass works on square tiles (kernel tables of FlashAttention 2 and 3).
SQUARE_TILE_WIDTH = 128
# A ring adds each block's 16-bit output to an fp32 sum: read, read and written.
CORRECTION_BYTES = 2 + 4 + 4
# Bytes moved for each score: a triangle is half a square.
SOFTMAX_BYTES = (0.5 * ACTIVATION_BYTES + ACTIVATION_BYTES, 2 * 0.5 * ACTIVATION_BYTES + ACTIVATION_BYTES)
# The chain casts to fp32 (2 + 4), scales, masks and normalises (3 x 8) and casts back (4 + 2); backward alike.
CHAIN_BYTES = 36
DROPOUT_BYTES = 2 * ACTIVATION_BYTES + 1


def attended_pairs(attention: Attention, sequence_length: int) -> float:
    """Count the (query, key) pairs of one causal sequence.

    A window of w keeps the last w keys of each query; chunks of c cut the sequence into triangles, the last of them of
    what is left.
    """
    if attention.chunk is not None:
        return triangle_pairs(sequence_length, attention.chunk)
    window = min(attention.window or sequence_length, sequence_length)
    return window * (sequence_length - window / 2.0)


def ring_blocks(job: Job, attention: Attention, layouts: LayoutTable) -> FloatArray:
    """Count the ranks whose keys a query of a ring sees, itself among them, [layouts]; 1 where there is no ring.

    Each of r ranks holds two blocks of b = s / (2 r) tokens, one from each half of the sequence, so that
    neighbours in the sequence are neighbours in the ring: chunks of c reach over c / b blocks, windows of w over
    w / b more than the query's own.
    """
    ranks = ring_ranks(layouts)
    block = job.sequence_length / (2.0 * ranks)
    reached = np.asarray(ranks, dtype=float)
    if attention.chunk is not None:
        reached = np.minimum(reached, np.ceil(attention.chunk / block))
    if attention.window is not None:
        reached = np.minimum(reached, 1.0 + np.ceil(attention.window / block))
    return np.where(ranks > 1, reached, 1.0)


def core_flop(job: Job, attention: Attention) -> float:
    """Count the operations of one sequence's causal attention core, forward, all heads."""
    if attention.linear is not None:
        return linear_core_flop(attention, attention.linear, job.sequence_length)[0]
    pairs = attended_pairs(attention, job.sequence_length)
    return 2.0 * pairs * attention.heads * (attention.head_dim + attention.value_head_dim)


def core_time_s(job: Job, attention: Attention, layouts: LayoutTable) -> tuple[FloatArray, FloatArray]:
    """Give the seconds of one micro-batch's attention core, forward and backward.

    Linear attention has a kernel of its own, whatever the stack's software does with softmax.
    """
    if attention.linear is not None:
        return linear_core_s(job, attention, attention.linear, layouts)
    if job.stack.fused_attention:
        return _fused_s(job, attention, layouts)
    return _unfused_s(job, attention, layouts)


def core_backward_flop(job: Job, attention: Attention) -> float:
    """Count the operations of one sequence's fused attention core, backward, all heads.

    Three products are as wide as keys (scores again, gradients of queries and of keys), two as wide as values.
    """
    if attention.linear is not None:
        return linear_core_flop(attention, attention.linear, job.sequence_length)[1]
    pairs = attended_pairs(attention, job.sequence_length)
    return 2.0 * pairs * attention.heads * (3 * attention.head_dim + 2 * attention.value_head_dim)


def softmax_s(device: Device, *, steps: int) -> float:
    """Give the seconds of one score's softmax: its exponential, and `steps` operations of the vector lanes.

    Peaks count two operations a lane, a multiplication and an addition. Zero where the device's rate of exponentials
    isn't known: its levels then hold for the widths that they were measured at.
    """
    if device.exponentials_per_s is None:
        return 0.0
    return 1.0 / device.exponentials_per_s + steps / (device.peak(Precision.FP32) / 2.0)


def shrunk_tile(attention: Attention) -> float:
    """Give how much more often the backward pass loads operands than for heads for which its tiles are square."""
    return max(1.0, 0.5 * (1.0 + max(attention.head_dim, attention.value_head_dim) / SQUARE_TILE_WIDTH))


def _fused_s(job: Job, attention: Attention, layouts: LayoutTable) -> tuple[FloatArray, FloatArray]:
    calibration = job.cluster.device.calibration
    forward_s, backward_s = _long_sequence_s(job, attention)
    ranks = ring_ranks(layouts)
    blocks = ring_blocks(job, attention, layouts)
    seen = min(attention.window or attention.chunk or job.sequence_length, job.sequence_length)
    reach = np.minimum(seen, job.sequence_length / np.where(ranks > 1, 2.0 * ranks, 1.0))
    sequences = layouts.micro_batch / (layouts.tensor_parallel * layouts.context_parallel)
    sequences = sequences * (1.0 + calibration.attention_half_length / reach)
    rows = tokens_of(job, layouts).computed * attention.heads / layouts.tensor_parallel
    sequences = sequences * (1.0 + TILE_ROWS * job.cluster.device.compute_units / rows)
    corrected = (blocks - 1) * rows * attention.value_head_dim
    correction_s = (
        CORRECTION_BYTES * corrected / (calibration.streaming * job.cluster.device.memory_bandwidth_bytes_per_s)
    )
    latency_s = blocks * calibration.kernel_latency
    return sequences * forward_s + correction_s + latency_s, sequences * backward_s + latency_s


def _long_sequence_s(job: Job, attention: Attention) -> tuple[float, float]:
    """Give the seconds of one sequence's core at the rate of long sequences over many heads, forward and backward."""
    device, calibration = job.cluster.device, job.cluster.device.calibration
    scores = attended_pairs(attention, job.sequence_length) * attention.heads
    peak = device.peak(wide_precision(job.precision))
    forward_s, backward_s = (
        misalignment(attention.head_dim) * math.hypot(flop / peak, scores * softmax_s(device, steps=steps))
        for flop, steps in zip(
            (core_flop(job, attention), core_backward_flop(job, attention) * shrunk_tile(attention)),
            SOFTMAX_STEPS,
            strict=True,
        )
    )
    share = job.stack.attention_share * (calibration.attention_ampere if job.stack.ampere_attention else 1.0)
    forward_level = share * calibration.attention_forward
    backward_level = share * calibration.attention_backward
    if job.stack.deterministic:
        backward_level = backward_level * calibration.attention_deterministic
    return forward_s / forward_level, backward_s / backward_level


def _unfused_s(job: Job, attention: Attention, layouts: LayoutTable) -> tuple[FloatArray, FloatArray]:
    device, length = job.cluster.device, float(job.sequence_length)
    queries = length / layouts.context_parallel
    count = layouts.micro_batch * attention.heads / layouts.tensor_parallel
    ones = np.ones(len(layouts))
    scores = Matmul(rows=queries, columns=ones * length, inner=ones * attention.head_dim, count=count)
    values = Matmul(rows=queries, columns=ones * attention.value_head_dim, inner=ones * length, count=count)
    precision = wide_precision(job.precision)
    products_s = matmul_time_s(device, precision, scores) + matmul_time_s(device, precision, values)
    products_s = products_s * misalignment(attention.head_dim)
    elements = count * queries * length
    bandwidth = device.calibration.streaming * device.memory_bandwidth_bytes_per_s
    chained = softmax_is_chained(job, attention, layouts)
    forward_bytes, backward_bytes = (
        np.where(chained, CHAIN_BYTES, each) + job.stack.dropout * DROPOUT_BYTES for each in SOFTMAX_BYTES
    )
    return (
        products_s + forward_bytes * elements / bandwidth,
        2.0 * products_s + backward_bytes * elements / bandwidth,
    )


def softmax_is_chained(job: Job, attention: Attention, layouts: LayoutTable) -> BoolArray:
    """Tell where unfused attention has to do without the fused softmax kernel, shape [layouts].

    Megatron's kernel takes score matrices by fours; Ascend's takes any number (MindSpeed's core/fusions/fused_softmax).
    """
    has_scores = attention.linear is None and not job.stack.fused_attention
    matrices = layouts.micro_batch * attention.heads // layouts.tensor_parallel
    return np.asarray((matrices % job.stack.softmax_batch != 0) & has_scores)


def key_value_bytes(job: Job, attention: Attention, layouts: LayoutTable) -> FloatArray:
    """Give the bytes of the keys and values of a device's own tokens, which context parallelism passes on."""
    width = attended_kv_heads(attention, layouts) * (attention.head_dim + attention.value_head_dim)
    return ACTIVATION_BYTES * tokens_of(job, layouts).computed * width
