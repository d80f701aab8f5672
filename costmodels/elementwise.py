"""Bytes that one layer's forward pass moves outside products and attention; the backward pass moves twice that.

Each kernel reads its inputs and writes its output, so what counts is how many kernels a piece of work is cut into. A
stack says for each kind whether one kernel does it (`fused_norm`, `fused_rotary`, `fused_activation`,
`fused_residual`); PyTorch's own operators one after another do what the chains below say. Biases are added by the
products before them, fused or not, where they aren't part of a fused kernel.

    work, of values of 2 bytes            fused         one operator after another
    norm                                  4             36: cast 2 + 4, square 4 + 4, mean 4, scale 4 + 4, cast 4 + 2,
                                                        weight 2 + 2
    queries, keys, values: split, moved   4             4
    rotation of queries and keys          in the above  20: half negated 2, halves joined 4, two products 4 + 4, sum 6
    ... of linear attention: activated    in the above  4; they aren't rotated
    its output: norm; gate                4; 6          36; 10, as other norms and gates
    activation, plain                     4             4
    activation, gated                     6             10: gate 2 + 2, product 4 + 2
    residual                              6             6
    ... with dropout, a byte of mask      1             5: read, written, mask

Experts move each (token, expert) pair's input and output once more each, for sorting tokens and putting them back:
`permutation_bytes` of the stack a value, 8 in one kernel each way. Operators one after another (the dispatcher of
MindSpeed that gathers all tokens) take 36: taken out 4, sorted 4, zeros and put back 2 + 4, weighed 4, cast to fp32
2 + 4, added up 4 + 4 + 4.
"""

import numpy as np

from meshwright.catalog.model_entry import Positions
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import expert_rows, local_kv_heads, tokens_of
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.transformer import Attention, Layer, Mlp

FUSED_NORM_BYTES = 4
# Squares and their mean, the scaled value and both casts are fp32.
CHAINED_NORM_BYTES = 36
MOVE_BYTES = 4
CHAINED_ROTARY_BYTES = 20
PLAIN_ACTIVATION_BYTES = 4
FUSED_GATE_BYTES = 6
CHAINED_GATE_BYTES = 10
RESIDUAL_BYTES = 6
FUSED_DROPOUT_BYTES = 1
CHAINED_DROPOUT_BYTES = 5
# Attention and MLP end in one each.
RESIDUALS = 2


def norm_bytes(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    """Give the bytes that a layer's norms move, [layouts]."""
    each = FUSED_NORM_BYTES if job.stack.fused_norm else CHAINED_NORM_BYTES
    return each * layer.norms * job.model.hidden * tokens_of(job, layouts).held


def residual_bytes(job: Job, layouts: LayoutTable) -> FloatArray:
    """Give the bytes that dropout and addition behind attention and MLP move, [layouts]."""
    dropout = FUSED_DROPOUT_BYTES if job.stack.fused_residual else CHAINED_DROPOUT_BYTES
    each = RESIDUAL_BYTES + (dropout if job.stack.dropout else 0)
    return RESIDUALS * each * job.model.hidden * tokens_of(job, layouts).held


def query_key_value_bytes(job: Job, attention: Attention, layouts: LayoutTable) -> FloatArray:
    """Give the bytes of splitting and moving queries, keys and values, and of rotating the first two, [layouts]."""
    heads, kv_heads = attention.heads / layouts.tensor_parallel, local_kv_heads(attention, layouts)
    width = (heads + kv_heads) * attention.head_dim + kv_heads * attention.value_head_dim
    moved = MOVE_BYTES * width
    if attention.linear is not None:
        activated = 0 if job.stack.fused_activation else PLAIN_ACTIVATION_BYTES * width
        return (moved + activated) * tokens_of(job, layouts).computed
    if job.model.positions is Positions.ROTARY and not job.stack.fused_rotary:
        moved = moved + CHAINED_ROTARY_BYTES * _rotated_width(attention, layouts)
    return moved * tokens_of(job, layouts).computed


def linear_output_bytes(job: Job, attention: Attention, layouts: LayoutTable) -> FloatArray:
    """Give the bytes of the norm behind linear attention and of its gate, [layouts]; none with softmax."""
    if attention.linear is None:
        return np.zeros(len(layouts))
    norm = FUSED_NORM_BYTES if job.stack.fused_norm else CHAINED_NORM_BYTES
    gate = FUSED_GATE_BYTES if job.stack.fused_activation else CHAINED_GATE_BYTES
    width = attention.heads * attention.value_head_dim / layouts.tensor_parallel
    return (norm + gate * attention.linear.gated) * width * tokens_of(job, layouts).computed


def _rotated_width(attention: Attention, layouts: LayoutTable) -> FloatArray:
    """Count the rotated values of a token: latent attention rotates a part of each query, and one key for all heads."""
    heads = attention.heads / layouts.tensor_parallel
    if attention.latent is not None:
        return (heads + 1.0) * attention.latent.rope_head_dim
    return (heads + local_kv_heads(attention, layouts)) * attention.head_dim


def activation_bytes(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    """Give the bytes that the activations of a dense MLP, or of routed and shared experts, move, [layouts]."""
    tokens, mlp = tokens_of(job, layouts).computed, layer.mlp
    each = PLAIN_ACTIVATION_BYTES
    if mlp.gated:
        each = FUSED_GATE_BYTES if job.stack.fused_activation else CHAINED_GATE_BYTES
    if isinstance(mlp, Mlp):
        return each * tokens * mlp.ffn_hidden / layouts.tensor_parallel
    routed = expert_rows(job, mlp, layouts) * mlp.ffn_hidden / layouts.expert_tensor_parallel
    return each * (routed + tokens * mlp.shared_ffn_hidden / layouts.tensor_parallel)


def permutation_bytes(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray | float:
    """Give the bytes of sorting tokens by expert and of putting them back, [layouts]; none for a dense MLP."""
    if isinstance(layer.mlp, Mlp):
        return 0.0
    return job.stack.permutation_bytes * job.model.hidden * expert_rows(job, layer.mlp, layouts)


def elementwise_bytes(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    """Give the bytes of the forward pass outside products and attention, [layouts]."""
    return (
        norm_bytes(job, layer, layouts)
        + residual_bytes(job, layouts)
        + query_key_value_bytes(job, layer.attention, layouts)
        + linear_output_bytes(job, layer.attention, layouts)
        + activation_bytes(job, layer, layouts)
        + permutation_bytes(job, layer, layouts)
    )
