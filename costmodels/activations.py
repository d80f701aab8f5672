"""Activations that one layer keeps for the backward pass of one micro-batch, on one device.

The count follows Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1), tensor by tensor; for GPT with dropout and
unfused attention it is their s b h (34 + 5 a s / h). Two-byte values unless said otherwise:

    norms                input and output of each                      on the held tokens
    attention            queries, keys, values; the weighted values    split by heads
      unfused            softmax output, dropout output and mask       a head's square of scores
      fused              log-sum-exp, 4 bytes a head and token
      latent             the compressed queries and keys too           on the held tokens
    MLP                  input and output of the activation            split by width
    experts              the same for each (token, expert) pair, the pair's input and output, and the router's scores
    dropout              one byte of mask behind attention and behind the MLP
"""

from dataclasses import dataclass

import numpy as np

from meshwright.catalog.stack_entry import SelectiveRecompute
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import FULL, SELECTIVE
from meshwright.costmodels.layer_work import (
    ACTIVATION_BYTES,
    attention_products,
    expert_rows,
    local_kv_heads,
    tokens_of,
)
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.transformer import Attention, Experts, Layer, Mlp

MASK_BYTES = 1
LOG_SUM_EXP_BYTES = 4
ROUTER_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerActivations:
    """Bytes of one layer and micro-batch, [layouts]: what the backward pass finds, and all there is meanwhile."""

    kept: FloatArray
    whole: FloatArray


def layer_activations(job: Job, layer: Layer, layouts: LayoutTable) -> LayerActivations:
    """Count the activations of one layer under each layout's recomputation."""
    core = _core_bytes(job, layer.attention, layouts)
    whole = _outside_core_bytes(job, layer, layouts) + core
    checkpoint = ACTIVATION_BYTES * job.model.hidden * tokens_of(job, layouts).held
    kept = np.where(layouts.recompute == SELECTIVE, _selectively_kept_bytes(job, layer, layouts, whole, core), whole)
    return LayerActivations(kept=np.where(layouts.recompute == FULL, checkpoint, kept), whole=whole)


def _selectively_kept_bytes(
    job: Job, layer: Layer, layouts: LayoutTable, whole: FloatArray, core: FloatArray
) -> FloatArray:
    """Count what selective recomputation leaves, by what the stack means by it."""
    tokens, hidden = tokens_of(job, layouts), job.model.hidden
    if job.stack.selective_recompute is SelectiveRecompute.ATTENTION_CORE:
        return whole - core
    if job.stack.selective_recompute is SelectiveRecompute.NORMS_AND_ACTIVATION:
        norm_outputs = layer.norms * ACTIVATION_BYTES * hidden * tokens.held
        return whole - norm_outputs - ACTIVATION_BYTES * _activated_width(job, layer.mlp, layouts)
    products = attention_products(job, layer.attention, layouts)
    outputs = sum(product.rows * product.columns for product in products)
    width = _activated_width(job, layer.mlp, layouts)
    outputs = outputs + (2 if layer.mlp.gated else 1) * width + hidden * _mlp_rows(job, layer.mlp, layouts)
    heads = layer.attention.heads / layouts.tensor_parallel
    attention_output = tokens.computed * heads * layer.attention.value_head_dim
    return ACTIVATION_BYTES * (hidden * tokens.held + attention_output + 0.5 * outputs) + core


def _activated_width(job: Job, mlp: Mlp | Experts, layouts: LayoutTable) -> FloatArray:
    """Count the values behind the activation: inputs of the last product of an MLP or of the experts."""
    tokens = tokens_of(job, layouts).computed
    if isinstance(mlp, Mlp):
        return tokens * mlp.ffn_hidden / layouts.tensor_parallel
    routed = expert_rows(job, mlp, layouts) * mlp.ffn_hidden / layouts.expert_tensor_parallel
    return routed + tokens * mlp.shared_ffn_hidden / layouts.tensor_parallel


def _mlp_rows(job: Job, mlp: Mlp | Experts, layouts: LayoutTable) -> FloatArray:
    """Count the rows that leave an MLP, or the routed and the shared experts."""
    tokens = tokens_of(job, layouts).computed
    if isinstance(mlp, Mlp):
        return tokens
    return expert_rows(job, mlp, layouts) + (tokens if mlp.shared_ffn_hidden else 0.0)


def _core_bytes(job: Job, attention: Attention, layouts: LayoutTable) -> FloatArray:
    """Count what the attention core keeps beside its inputs: what selective recomputation drops."""
    tokens = tokens_of(job, layouts).computed
    heads = attention.heads / layouts.tensor_parallel
    if job.stack.fused_attention:
        return tokens * heads * LOG_SUM_EXP_BYTES
    score_bytes = ACTIVATION_BYTES + (ACTIVATION_BYTES + MASK_BYTES if job.stack.dropout else 0)
    return tokens * heads * job.sequence_length * score_bytes


def _outside_core_bytes(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    tokens, hidden, attention = tokens_of(job, layouts), job.model.hidden, layer.attention
    norms = 2 * layer.norms * ACTIVATION_BYTES * hidden * tokens.held
    masks = 2 * MASK_BYTES * hidden * tokens.held if job.stack.dropout else 0.0
    heads = attention.heads / layouts.tensor_parallel
    kv_heads = heads if attention.latent else local_kv_heads(attention, layouts)
    width = (heads + kv_heads) * attention.head_dim + (heads + kv_heads) * attention.value_head_dim
    total = norms + masks + ACTIVATION_BYTES * tokens.computed * width
    if attention.latent:
        rank = (attention.latent.query_rank or 0) + attention.latent.kv_rank
        total = total + 2 * ACTIVATION_BYTES * tokens.held * rank
    return total + _mlp_bytes(job, layer, layouts)


def _mlp_bytes(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    tokens, hidden, mlp = tokens_of(job, layouts), job.model.hidden, layer.mlp
    tensors = 3 if mlp.gated else 2
    if isinstance(mlp, Mlp):
        return tensors * ACTIVATION_BYTES * tokens.computed * mlp.ffn_hidden / layouts.tensor_parallel
    rows = expert_rows(job, mlp, layouts)
    experts = rows * (tensors * mlp.ffn_hidden / layouts.expert_tensor_parallel + 2 * hidden)
    shared = tensors * tokens.computed * mlp.shared_ffn_hidden / layouts.tensor_parallel
    return ACTIVATION_BYTES * (experts + shared) + ROUTER_BYTES * mlp.experts * tokens.held
