"""Small models and workloads for tests of the reference launcher and of its ledger."""

from typing import Any

from meshwright.catalog.model_entry import ROTARY_BASE, Norm, Positions
from meshwright.costmodels.layout import Layout
from meshwright.costmodels.stages import stage_chunks
from meshwright.costmodels.transformer import Attention, Experts, Layer, Mlp, Transformer
from meshwright.planner.ledger import Workload

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, WIDTH, WORDS = 32, 8, 4, 4, 48, 64
EXPERTS, CHOICES, EXPERT_WIDTH, SHARED_WIDTH = 4, 2, 24, 16


def small_model(*, layers: int = 4, experts: bool = False, shared: bool = False) -> Transformer:
    """A model of Llama's kind; with experts in every other layer, and a shared one if asked for."""
    attention = Attention(
        heads=HEADS,
        kv_heads=KV_HEADS,
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
    mixture = Experts(
        experts=EXPERTS,
        top_k=CHOICES,
        ffn_hidden=EXPERT_WIDTH,
        shared_ffn_hidden=SHARED_WIDTH if shared else 0,
        shared_gate=False,
        router_bias=False,
        gated=True,
    )
    mlp = Mlp(ffn_hidden=WIDTH, gated=True, bias=False)
    return Transformer(
        name="small",
        hidden=HIDDEN,
        vocab=WORDS,
        tied_embeddings=False,
        norm=Norm.RMS_NORM,
        final_norm=True,
        embedding_norm=False,
        positions=Positions.ROTARY,
        max_positions=0,
        rotary_base=ROTARY_BASE,
        layers=tuple(
            Layer(attention=attention, mlp=mixture if experts and index % 2 == 0 else mlp, norms=2)
            for index in range(layers)
        ),
        mtp_layers=0,
    )


def small_workload(
    model: Transformer | None = None,
    *,
    micro_batches: int = 4,
    sequence_length: int = 32,
    **fields: Any,  # noqa: ANN401 - of Layout
) -> Workload:
    """A small model under a layout of these fields, its layers cut as evenly as can be."""
    model, layout = model or small_model(), Layout(**fields)
    return Workload(
        model=model,
        layout=layout,
        stages=tuple(stage.layers for stage in stage_chunks(len(model.layers), layout)),
        sequence_length=sequence_length,
        micro_batches=micro_batches,
    )
