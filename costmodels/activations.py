"""Activations that one layer keeps for the backward pass of one micro-batch, on one device.

The count follows Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1), tensor by tensor; for GPT with dropout and
unfused attention it is their s b h (34 + 5 a s / h). Two-byte values unless said otherwise:

    norms                input and output of each                      on the held tokens
    attention            queries, keys, values; the weighted values    split by heads
      unfused            softmax output, dropout output and mask       a head's square of scores
      fused              statistics of the softmax for each head and token: its log-sum-exp, 4 bytes; on Ascend its
                         largest score and its sum, eight times in fp32 each
      latent             the compressed queries and keys too           on the held tokens
      linear             the values before their norm, and the gate    split by heads
    MLP                  input and output of the activation            split by width
      gated, unfused     the activation's own output too
    experts              the same for each (token, expert) pair, the pair's input, and the router's scores; its output
                         is weighted before the last product (Megatron-Core 0.12 and later) and need not stay
    dropout              one byte of mask behind attention and behind the MLP
"""

from dataclasses import dataclass

import numpy as np

from meshwright.catalog.precision import Precision
from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.costmodels.every_other_product import kept_outputs
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import (
    ACTIVATION_BYTES,
    attended_kv_heads,
    expert_rows,
    tokens_of,
)
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.recompute import FULL, SELECTIVE
from meshwright.costmodels.transformer import Attention, Experts, Layer, Mlp

# Blocks of 32 values share a byte of scale in mxfp8, blocks of 16 in nvfp4.
NARROW_BYTES = {Precision.FP8: 1.0, Precision.MXFP8: 1.0 + 1 / 32, Precision.NVFP4: 0.5 + 1 / 16}
MASK_BYTES = 1
ROUTER_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerActivations:
    """Bytes of one layer and micro-batch, [layouts]: what the backward pass finds, and all there is meanwhile."""

    kept: FloatArray
    whole: FloatArray


def is_narrow(job: Job) -> bool:
    """Tell whether products keep inputs and weights in a format below 16 bits."""
    return job.stack.narrow_inputs and job.precision in NARROW_BYTES


def input_bytes(job: Job) -> float:
    """Give the bytes of one value that a product keeps as its input."""
    return NARROW_BYTES[job.precision] if is_narrow(job) else ACTIVATION_BYTES


def layer_activations(job: Job, layer: Layer, layouts: LayoutTable) -> LayerActivations:
    """Count the activations of one layer under each layout's recomputation."""
    core = _core_bytes(job, layer.attention, layouts)
    whole = _outside_core_bytes(job, layer, layouts) + core
    checkpoint = ACTIVATION_BYTES * job.model.hidden * tokens_of(job, layouts).held
    kept = np.where(layouts.recompute == SELECTIVE, _selectively_kept_bytes(job, layer, layouts, whole, core), whole)
    wide = 2.0 if job.precision is Precision.FP32 else 1.0
    return LayerActivations(kept=wide * np.where(layouts.recompute == FULL, checkpoint, kept), whole=wide * whole)


def _selectively_kept_bytes(
    job: Job, layer: Layer, layouts: LayoutTable, whole: FloatArray, core: FloatArray
) -> FloatArray:
    """Count what selective recomputation leaves, by the modules that the stack computes again."""
    modules = job.stack.selective_recompute
    tokens, hidden = tokens_of(job, layouts), job.model.hidden
    if RecomputedModule.EVERY_OTHER_PRODUCT in modules:
        return _every_other_product_bytes(job, layer, layouts) + core
    kept = whole
    if RecomputedModule.ATTENTION_CORE in modules:
        kept = kept - core
    if RecomputedModule.NORMS in modules:
        kept = kept - layer.norms * input_bytes(job) * hidden * tokens.held
    if RecomputedModule.LATENT_UP_PROJECTION in modules and layer.attention.latent:
        kept = kept - query_key_value_bytes(job, layer.attention, layouts)
    return kept - _recomputed_mlp_bytes(job, layer, layouts)


def _every_other_product_bytes(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    """Count a layer's input, attention's output and what every other product makes; of experts that is half."""
    tokens, hidden = tokens_of(job, layouts), job.model.hidden
    outputs = kept_outputs(job, layer, layouts)
    if not isinstance(layer.mlp, Mlp):
        width = activated_width(job, layer.mlp, layouts)
        made = (2 if layer.mlp.gated else 1) * width + hidden * _mlp_rows(job, layer.mlp, layouts)
        outputs = outputs + 0.5 * made
    heads = layer.attention.heads / layouts.tensor_parallel
    attention_output = tokens.computed * heads * layer.attention.value_head_dim
    return ACTIVATION_BYTES * (hidden * tokens.held + attention_output + outputs)


def _recomputed_mlp_bytes(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    """Count what recomputation of an MLP, of experts or of the activation drops."""
    modules, mlp = job.stack.selective_recompute, layer.mlp
    activated = RecomputedModule.ACTIVATION in modules
    nothing = np.zeros(len(layouts))
    if isinstance(mlp, Mlp):
        if RecomputedModule.MLP in modules:
            return mlp_bytes(job, layer, layouts)
        return input_bytes(job) * activated_width(job, mlp, layouts) if activated else nothing
    if RecomputedModule.EXPERTS in modules:
        return mlp_bytes(job, layer, layouts)
    routed, shared = _expert_widths(job, mlp, layouts)
    dropped = input_bytes(job) * (routed + shared) if activated else nothing
    if RecomputedModule.SHARED_EXPERTS in modules:
        dropped = dropped + (ACTIVATION_BYTES * (2 if mlp.gated else 1) + input_bytes(job) * (not activated)) * shared
    return dropped


def activated_width(job: Job, mlp: Mlp | Experts, layouts: LayoutTable) -> FloatArray:
    """Count the values behind the activation: inputs of the last product of an MLP or of the experts."""
    if isinstance(mlp, Mlp):
        return tokens_of(job, layouts).computed * mlp.ffn_hidden / layouts.tensor_parallel
    routed, shared = _expert_widths(job, mlp, layouts)
    return routed + shared


def _expert_widths(job: Job, mlp: Experts, layouts: LayoutTable) -> tuple[FloatArray, FloatArray]:
    """Count the values behind the activation of the routed and of the shared experts."""
    routed = expert_rows(job, mlp, layouts) * mlp.ffn_hidden / layouts.expert_tensor_parallel
    return routed, tokens_of(job, layouts).computed * mlp.shared_ffn_hidden / layouts.tensor_parallel


def _mlp_rows(job: Job, mlp: Mlp | Experts, layouts: LayoutTable) -> FloatArray:
    """Count the rows that leave an MLP, or the routed and the shared experts."""
    tokens = tokens_of(job, layouts).computed
    if isinstance(mlp, Mlp):
        return tokens
    return expert_rows(job, mlp, layouts) + (tokens if mlp.shared_ffn_hidden else 0.0)


def _core_bytes(job: Job, attention: Attention, layouts: LayoutTable) -> FloatArray:
    """Count what the attention core keeps beside its inputs: what selective recomputation drops.

    Linear attention keeps nothing: blocks and states are made again from queries, keys and values.
    """
    if attention.linear is not None:
        return np.zeros(len(layouts))
    tokens = tokens_of(job, layouts).computed
    heads = attention.heads / layouts.tensor_parallel
    if job.stack.fused_attention:
        return tokens * heads * job.stack.statistics_bytes
    score_bytes = ACTIVATION_BYTES + (ACTIVATION_BYTES + MASK_BYTES if job.stack.dropout else 0)
    return tokens * heads * job.sequence_length * score_bytes


def _outside_core_bytes(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    tokens, hidden, attention = tokens_of(job, layouts), job.model.hidden, layer.attention
    norms = layer.norms * (ACTIVATION_BYTES + input_bytes(job)) * hidden * tokens.held
    masks = 2 * MASK_BYTES * hidden * tokens.held if job.stack.dropout else 0.0
    context_bytes = ACTIVATION_BYTES + (input_bytes(job) if is_narrow(job) else 0)
    context = context_bytes * tokens.computed * attention.heads * attention.value_head_dim / layouts.tensor_parallel
    total = norms + masks + query_key_value_bytes(job, attention, layouts) + context
    if attention.linear is not None:
        width = attention.heads * attention.value_head_dim / layouts.tensor_parallel
        total = total + (2 if attention.linear.gated else 1) * ACTIVATION_BYTES * tokens.computed * width
    if attention.latent:
        rank = (attention.latent.query_rank or 0) + attention.latent.kv_rank
        total = total + 2 * ACTIVATION_BYTES * tokens.held * rank
    return total + mlp_bytes(job, layer, layouts)


def query_key_value_bytes(job: Job, attention: Attention, layouts: LayoutTable) -> FloatArray:
    """Count queries, keys and values, [layouts]."""
    heads = attention.heads / layouts.tensor_parallel
    kv_heads = heads if attention.latent else attended_kv_heads(attention, layouts)
    width = (heads + kv_heads) * attention.head_dim + kv_heads * attention.value_head_dim
    return ACTIVATION_BYTES * tokens_of(job, layouts).computed * width


def mlp_bytes(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    """Count what an MLP, or the experts, keep around their activation, [layouts]."""
    tokens, hidden, mlp = tokens_of(job, layouts), job.model.hidden, layer.mlp
    width_bytes = ACTIVATION_BYTES * (2 if mlp.gated else 1) + input_bytes(job)
    if mlp.gated and not job.stack.fused_activation:
        width_bytes += ACTIVATION_BYTES
    if isinstance(mlp, Mlp):
        return width_bytes * tokens.computed * mlp.ffn_hidden / layouts.tensor_parallel
    routed, shared = _expert_widths(job, mlp, layouts)
    pairs = input_bytes(job) * expert_rows(job, mlp, layouts) * hidden
    return width_bytes * (routed + shared) + pairs + ROUTER_BYTES * mlp.experts * tokens.held
