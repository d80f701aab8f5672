"""A small model of the kind of a plan's, and a small batch, that the plan's layout divides."""

import math
from dataclasses import replace

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.model_entry import Norm, Positions
from meshwright.costmodels.layout import Layout
from meshwright.costmodels.transformer import Attention, Experts, Layer, Mlp, Transformer
from meshwright.planner.ledger.workload import Workload

HEAD_DIM = 8
HEADS_AT_LEAST, EXPERTS_AT_LEAST, CHOICES_AT_MOST = 4, 4, 2
WIDTH = 32
WORDS = 128
TOKENS_A_RANK = 8
SEQUENCE_AT_LEAST = 32
MICRO_BATCHES_ALONE = 2


def tiny_workload(workload: Workload) -> Workload:
    """Give the same layout and stages on a small model, short sequences and few micro-batches.

    The model has the plan's number of layers, dense or with experts as there, with shared experts if there are any,
    and grouped key and value heads if the plan's are.
    """
    layout = workload.layout
    few = 2 * layout.pipeline_parallel if layout.pipeline_parallel > 1 else MICRO_BATCHES_ALONE
    tokens = TOKENS_A_RANK * layout.context_parallel * layout.tensor_parallel
    return replace(
        workload,
        model=_model(workload.model, layout),
        sequence_length=math.ceil(SEQUENCE_AT_LEAST / tokens) * tokens,
        micro_batches=min(workload.micro_batches, few),
    )


def _model(model: Transformer, layout: Layout) -> Transformer:
    attention = _attention(model.layers[0].attention, layout)
    hidden = attention.heads * HEAD_DIM
    return Transformer(
        name=f"tiny {model.name}",
        hidden=hidden,
        vocab=_multiple(layout.tensor_parallel, at_least=WORDS),
        tied_embeddings=False,
        norm=Norm.RMS_NORM,
        final_norm=True,
        embedding_norm=False,
        positions=Positions.ROTARY,
        max_positions=0,
        rotary_base=model.rotary_base,
        layers=tuple(Layer(attention=attention, mlp=_mlp(each.mlp, hidden, layout), norms=2) for each in model.layers),
        mtp_layers=0,
    )


def _attention(attention: Attention, layout: Layout) -> Attention:
    exchanged = layout.context_parallel if layout.context_method is ContextMethod.ULYSSES else 1
    grouped = attention.kv_heads < attention.heads
    parts = layout.tensor_parallel * exchanged
    kv_heads = _multiple(parts, at_least=HEADS_AT_LEAST // 2 if grouped else HEADS_AT_LEAST)
    return Attention(
        heads=2 * kv_heads if grouped else kv_heads,
        kv_heads=kv_heads,
        head_dim=HEAD_DIM,
        value_head_dim=HEAD_DIM,
        window=None,
        chunk=None,
        latent=None,
        linear=None,
        qkv_bias=False,
        output_bias=False,
        query_key_norm=False,
    )


def _mlp(mlp: Mlp | Experts, hidden: int, layout: Layout) -> Mlp | Experts:
    if isinstance(mlp, Mlp):
        return Mlp(ffn_hidden=_multiple(layout.tensor_parallel, at_least=2 * hidden), gated=True, bias=False)
    return Experts(
        experts=_multiple(layout.expert_parallel, at_least=EXPERTS_AT_LEAST),
        top_k=min(mlp.top_k, CHOICES_AT_MOST),
        ffn_hidden=WIDTH,
        shared_ffn_hidden=_multiple(layout.tensor_parallel, at_least=WIDTH) if mlp.shared_ffn_hidden else 0,
        shared_gate=False,
        router_bias=False,
        gated=True,
    )


def _multiple(divisor: int, *, at_least: int) -> int:
    return math.ceil(at_least / divisor) * divisor
