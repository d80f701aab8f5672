"""What a layer keeps for its backward pass, tensor class by tensor class, and what computing each again takes.

A class is computed again from those before it in the forward pass, which are there by then: kept, fetched, or computed
again themselves. So each costs its own operations alone, and all of them a forward pass without its last product:

    input           the layer's input                       nothing but keeping or moving it makes it
    norms           outputs of the norms                    half the elementwise traffic
    qkv             queries, keys and values; latent ranks  their products
    attention       weighted values, log-sum-exp or scores  the attention core, context exchange
    residual        what is behind attention; masks         the output product, half the tensor exchange
    mlp             inputs of the activation                the first product, dispatch to experts
    activation      output of the activation                half the elementwise traffic

Their bytes sum to those of activations.py.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from meshwright.catalog.precision import Precision
from meshwright.costmodels.activations import (
    MASK_BYTES,
    activated_width,
    input_bytes,
    layer_activations,
    mlp_bytes,
    query_key_value_bytes,
)
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, layer_time, products_time_s
from meshwright.costmodels.layer_work import ACTIVATION_BYTES, attention_products, mlp_products, tokens_of
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.transformer import Experts, Layer


class TensorClass(StrEnum):
    """A class of tensors of one layer, in the order in which the forward pass makes them."""

    INPUT = "input"
    NORMS = "norms"
    QKV = "qkv"
    ATTENTION = "attention"
    RESIDUAL = "residual"
    MLP = "mlp"
    ACTIVATION = "activation"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCosts:
    """Bytes of each class, of one layer and micro-batch, and the seconds of computing it again, [layouts].

    again_s has no INPUT, which can't be computed again.
    """

    kept_bytes: dict[TensorClass, FloatArray]
    again_s: dict[TensorClass, FloatArray]


def class_costs(job: Job, layer: Layer, layouts: LayoutTable) -> ClassCosts:
    """Give bytes and seconds of the classes of one layer."""
    return ClassCosts(kept_bytes=_kept_bytes(job, layer, layouts), again_s=_again_s(job, layer, layouts))


def _kept_bytes(job: Job, layer: Layer, layouts: LayoutTable) -> dict[TensorClass, FloatArray]:
    held = job.model.hidden * tokens_of(job, layouts).held
    wide = 2.0 if job.precision is Precision.FP32 else 1.0
    attention = layer.attention
    latent = attention.latent
    ranks = 0 if latent is None else (latent.query_rank or 0) + latent.kv_rank
    activation = input_bytes(job) * activated_width(job, layer.mlp, layouts)
    masks = 2 * MASK_BYTES if job.stack.dropout else 0
    sizes = {
        TensorClass.INPUT: ACTIVATION_BYTES * held,
        TensorClass.NORMS: layer.norms * input_bytes(job) * held,
        TensorClass.QKV: query_key_value_bytes(job, attention, layouts)
        + 2 * ACTIVATION_BYTES * tokens_of(job, layouts).held * ranks,
        TensorClass.RESIDUAL: ((layer.norms - 1) * ACTIVATION_BYTES + masks) * held,
        TensorClass.MLP: mlp_bytes(job, layer, layouts) - activation,
        TensorClass.ACTIVATION: activation,
    }
    kept = {name: np.asarray(wide * size, dtype=float) for name, size in sizes.items()}
    # The rest is of attention: weighted values, gates, and what its core keeps.
    rest = layer_activations(job, layer, layouts).whole - sum(kept.values())
    return {name: kept[name] if name in kept else np.asarray(rest) for name in TensorClass}


def _again_s(job: Job, layer: Layer, layouts: LayoutTable) -> dict[TensorClass, FloatArray]:
    forward = layer_time(job, layer, layouts).forward
    *into_attention, out = attention_products(job, layer.attention, layouts)
    products = mlp_products(job, layer.mlp, layouts)
    # Router, up and down; then up and down of shared experts. A dense MLP is up and down alone.
    into_mlp = (*products[:2], *products[3:4]) if isinstance(layer.mlp, Experts) else products[:1]
    seconds = {
        TensorClass.NORMS: 0.5 * forward[Cause.ELEMENTWISE],
        TensorClass.QKV: products_time_s(job, tuple(into_attention))[0],
        TensorClass.ATTENTION: forward[Cause.ATTENTION] + forward[Cause.CONTEXT],
        TensorClass.RESIDUAL: products_time_s(job, (out,))[0] + 0.5 * forward[Cause.TENSOR],
        TensorClass.MLP: products_time_s(job, into_mlp)[0] + 0.5 * forward[Cause.EXPERT],
        TensorClass.ACTIVATION: 0.5 * forward[Cause.ELEMENTWISE],
    }
    return {name: np.broadcast_to(value, len(layouts)) for name, value in seconds.items()}
