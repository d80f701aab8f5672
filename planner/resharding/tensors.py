"""The tensors of a model, and along which dimension each is cut.

With hidden size h, each matrix as PyTorch keeps it, [outputs, inputs]:

    rows         tensor parallelism cuts dimension 0: what reads the hidden state (query, key, value, gate, up)
    columns      tensor parallelism cuts dimension 1: what writes it (output, down)
    vocabulary   as rows, of a vocabulary padded to a multiple of 128 x tensor_parallel as Megatron's is
    expert rows, columns   [experts, outputs, inputs]: expert parallelism cuts dimension 0, expert tensor parallelism
                 dimension 1 (gate, up) or 2 (down)
    whole        on every tensor rank: norms, biases behind a sum, routers, matrices down to a latent rank

The elements of all of them are those that `costmodels/parameters.py` counts (arXiv 1909.08053, section 3).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from meshwright.catalog.model_entry import Norm, Positions
from meshwright.costmodels.transformer import Attention, Experts, LatentAttention, Layer, Mlp, Transformer


class Split(StrEnum):
    """Along which dimension a tensor is cut."""

    WHOLE = "whole"
    ROWS = "rows"
    COLUMNS = "columns"
    VOCABULARY = "vocabulary"
    EXPERT_ROWS = "expert rows"
    EXPERT_COLUMNS = "expert columns"


class End(StrEnum):
    """What isn't in a layer: with the embedding, with the head, with both where they are one, behind the last layer."""

    EMBEDDING = "embedding"
    HEAD = "head"
    BOTH = "both"
    LAST = "last"


@dataclass(frozen=True, kw_only=True)
class ModelTensor:
    """One tensor: name, whole shape, cut, and the layer that it is of, or the end of the model."""

    name: str
    shape: tuple[int, ...]
    split: Split = Split.WHOLE
    place: int | End = 0

    @cached_property
    def elements(self) -> int:
        """Elements in all."""
        return math.prod(self.shape)

    @property
    def expert(self) -> bool:
        """Whether it is of routed experts."""
        return self.split in (Split.EXPERT_ROWS, Split.EXPERT_COLUMNS)

    @property
    def cube(self) -> tuple[int, int, int]:
        """The shape as experts, rows and columns, 1 where it lacks one."""
        if self.expert:
            return self.shape[0], self.shape[1], self.shape[2]
        return 1, self.shape[0], math.prod(self.shape[1:])


def tensors_of(model: Transformer) -> tuple[ModelTensor, ...]:
    """Give all tensors of a model, in the order of a forward pass, with those of multi-token prediction."""
    tensors = [*_embedding(model)]
    for index, layer in enumerate(model.layers):
        tensors += _placed(_layer(model, layer), f"layers.{index}", index)
    for index in range(model.mtp_layers):
        tensors += _placed(_prediction(model), f"mtp.{index}", End.LAST)
    return (*tensors, *_head(model))


def _placed(tensors: Iterator[ModelTensor], prefix: str, place: int | End) -> Iterator[ModelTensor]:
    for tensor in tensors:
        yield replace(tensor, name=f"{prefix}.{tensor.name}", place=place)


def _embedding(model: Transformer) -> Iterator[ModelTensor]:
    end = End.BOTH if model.tied_embeddings else End.EMBEDDING
    yield ModelTensor(name="embedding.weight", shape=(model.vocab, model.hidden), split=Split.VOCABULARY, place=end)
    if model.positions is Positions.LEARNED:
        shape = (model.max_positions, model.hidden)
        yield ModelTensor(name="embedding.positions", shape=shape, place=End.EMBEDDING)
    if model.embedding_norm:
        yield from _placed(_norm(model, "norm", model.hidden), "embedding", End.EMBEDDING)


def _head(model: Transformer) -> Iterator[ModelTensor]:
    if model.final_norm:
        yield from _placed(_norm(model, "norm", model.hidden), "head", End.HEAD)
    if not model.tied_embeddings:
        shape = (model.vocab, model.hidden)
        yield ModelTensor(name="head.output.weight", shape=shape, split=Split.VOCABULARY, place=End.HEAD)


def _prediction(model: Transformer) -> Iterator[ModelTensor]:
    """Give one module of multi-token prediction (arXiv 2412.19437, section 2.2)."""
    yield ModelTensor(name="projection.weight", shape=(model.hidden, 2 * model.hidden), split=Split.ROWS)
    for name in ("hidden_norm", "embedding_norm", "head_norm"):
        yield from _norm(model, name, model.hidden)
    yield from _layer(model, model.layers[-1])


def _layer(model: Transformer, layer: Layer) -> Iterator[ModelTensor]:
    names = ("attention_norm", "mlp_norm", *(f"norm_{number}" for number in range(2, layer.norms)))
    for name in names[: layer.norms]:
        yield from _norm(model, name, model.hidden)
    for tensor in _attention(model, layer.attention):
        yield replace(tensor, name=f"attention.{tensor.name}")
    for tensor in _mlp(model.hidden, layer.mlp):
        yield replace(tensor, name=f"mlp.{tensor.name}")


def _norm(model: Transformer, name: str, width: int) -> Iterator[ModelTensor]:
    yield ModelTensor(name=f"{name}.weight", shape=(width,))
    if model.norm is Norm.LAYER_NORM:
        yield ModelTensor(name=f"{name}.bias", shape=(width,))


def _attention(model: Transformer, attention: Attention) -> Iterator[ModelTensor]:
    query, value = attention.heads * attention.head_dim, attention.heads * attention.value_head_dim
    if attention.latent is not None:
        yield from _latent(model, attention, attention.latent)
    else:
        key = attention.kv_heads * attention.head_dim
        columns = {"query": query, "key": key, "value": attention.kv_heads * attention.value_head_dim}
        for name, width in columns.items():
            yield ModelTensor(name=f"{name}.weight", shape=(width, model.hidden), split=Split.ROWS)
            if attention.qkv_bias:
                yield ModelTensor(name=f"{name}.bias", shape=(width,), split=Split.ROWS)
        if attention.query_key_norm:
            for name in ("query_norm", "key_norm"):
                yield from _norm(model, name, attention.head_dim)
        if attention.linear is not None:
            yield from _norm(model, "norm", value)
            if attention.linear.gated:
                yield ModelTensor(name="gate.weight", shape=(value, model.hidden), split=Split.ROWS)
    yield ModelTensor(name="output.weight", shape=(model.hidden, value), split=Split.COLUMNS)
    if attention.output_bias:
        yield ModelTensor(name="output.bias", shape=(model.hidden,))


def _latent(model: Transformer, attention: Attention, latent: LatentAttention) -> Iterator[ModelTensor]:
    """Give the matrices down to the ranks, the norms there, and those up again (arXiv 2405.04434, section 2.1)."""
    query, from_query = attention.heads * attention.head_dim, latent.query_rank or model.hidden
    up = attention.heads * (latent.nope_head_dim + latent.value_head_dim)
    downs = {"key_value": (latent.kv_rank + latent.rope_head_dim, latent.kv_rank)}
    if latent.query_rank:
        downs = {"query": (latent.query_rank, latent.query_rank), **downs}
    for name, (rows, rank) in downs.items():
        yield ModelTensor(name=f"{name}_down.weight", shape=(rows, model.hidden))
        if attention.qkv_bias:
            yield ModelTensor(name=f"{name}_down.bias", shape=(rows,))
        yield from _norm(model, f"{name}_norm", rank)
    yield ModelTensor(name="query_up.weight", shape=(query, from_query), split=Split.ROWS)
    yield ModelTensor(name="key_value_up.weight", shape=(up, latent.kv_rank), split=Split.ROWS)


def _mlp(hidden: int, mlp: Mlp | Experts) -> Iterator[ModelTensor]:
    if isinstance(mlp, Mlp):
        yield from _dense(hidden, mlp.ffn_hidden, gated=mlp.gated, bias=mlp.bias)
        return
    yield ModelTensor(name="router.weight", shape=(mlp.experts, hidden))
    if mlp.router_bias:
        yield ModelTensor(name="router.bias", shape=(mlp.experts,))
    for name in ("gate", "up") if mlp.gated else ("up",):
        shape = (mlp.experts, mlp.ffn_hidden, hidden)
        yield ModelTensor(name=f"experts.{name}", shape=shape, split=Split.EXPERT_ROWS)
    shape = (mlp.experts, hidden, mlp.ffn_hidden)
    yield ModelTensor(name="experts.down", shape=shape, split=Split.EXPERT_COLUMNS)
    if mlp.shared_ffn_hidden:
        for tensor in _dense(hidden, mlp.shared_ffn_hidden, gated=mlp.gated, bias=False):
            yield replace(tensor, name=f"shared.{tensor.name}")
    if mlp.shared_gate:
        yield ModelTensor(name="shared_gate.weight", shape=(1, hidden))


def _dense(hidden: int, width: int, *, gated: bool, bias: bool) -> Iterator[ModelTensor]:
    for name in ("gate", "up") if gated else ("up",):
        yield ModelTensor(name=f"{name}.weight", shape=(width, hidden), split=Split.ROWS)
        if bias:
            yield ModelTensor(name=f"{name}.bias", shape=(width,), split=Split.ROWS)
    yield ModelTensor(name="down.weight", shape=(hidden, width), split=Split.COLUMNS)
    if bias:
        yield ModelTensor(name="down.bias", shape=(hidden,))
