"""Parameter counts by hand on small layers, and laws that they keep."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.catalog.model_entry import ExpertsEntry, LatentAttentionEntry, ModelEntry, Norm, Positions
from meshwright.costmodels.parameters import (
    LayerParameters,
    active_parameters,
    embedding_norm_parameters,
    embedding_parameters,
    final_norm_parameters,
    head_parameters,
    layer_parameters,
    mtp_parameters,
    position_parameters,
    total_parameters,
)
from meshwright.costmodels.transformer import Transformer, transformer_of

SMALL = ModelEntry(
    name="small",
    source="made up",
    layers=2,
    hidden=8,
    heads=4,
    kv_heads=2,
    head_dim=3,
    ffn_hidden=10,
    gated_mlp=True,
    vocab=100,
    tied_embeddings=False,
)
LATENT = LatentAttentionEntry(query_rank=5, kv_rank=6, nope_head_dim=3, rope_head_dim=2, value_head_dim=7)
EXPERTS = ExpertsEntry(experts=6, top_k=2, ffn_hidden=5, shared_ffn_hidden=4)


def model_with(**changes: object) -> Transformer:
    return transformer_of(ModelEntry.model_validate(SMALL.model_dump() | changes))


def first_layer(**changes: object) -> LayerParameters:
    model = model_with(**changes)
    return layer_parameters(model, model.layers[0])


def test_grouped_attention_and_gated_mlp() -> None:
    layer = first_layer()
    # Query 8 x 12, key and value 8 x 6 each, output 12 x 8; three matrices of 8 x 10; two norms of 8.
    assert layer.attention_sharded == 96 + 48 + 48 + 96
    assert layer.mlp_sharded == 3 * 80
    assert (layer.experts, layer.active_experts) == (0, 0)
    assert layer.replicated == 2 * 8
    assert layer.total == layer.active == 288 + 240 + 16


def test_biases_split_with_the_columns_and_stay_whole_behind_the_rows() -> None:
    plain, biased = first_layer(), first_layer(qkv_bias=True, output_bias=True, mlp_bias=True)
    assert biased.attention_sharded - plain.attention_sharded == 12 + 6 + 6
    assert biased.mlp_sharded - plain.mlp_sharded == 2 * 10
    assert biased.replicated - plain.replicated == 8 + 8


def test_plain_mlp_has_two_matrices_and_one_first_bias() -> None:
    assert first_layer(gated_mlp=False, mlp_bias=True).mlp_sharded == 2 * 80 + 10


def test_layer_norm_has_a_bias_that_rms_norm_lacks() -> None:
    assert first_layer(norm=Norm.LAYER_NORM).replicated == 2 * 2 * 8
    assert first_layer(norms_per_layer=4).replicated == 4 * 8


def test_query_and_key_norms_have_the_width_of_a_head() -> None:
    assert first_layer(query_key_norm=True).replicated == 2 * 8 + 2 * 3
    assert first_layer(query_key_norm=True, norm=Norm.LAYER_NORM).replicated == 2 * (2 * 8 + 2 * 3)


def test_latent_attention() -> None:
    layer = first_layer(latent_attention=LATENT)
    # Up: query 5 x 4(3+2), keys and values 6 x 4(3+7), output 4*7 x 8. Down: 8 x 5, 8 x (6+2); norms of 5 and 6.
    assert layer.attention_sharded == 100 + 240 + 224
    assert layer.replicated == 2 * 8 + 40 + 64 + 5 + 6


def test_latent_attention_without_query_rank_projects_queries_at_once() -> None:
    layer = first_layer(latent_attention=LATENT.model_copy(update={"query_rank": None}))
    assert layer.attention_sharded == 8 * 20 + 240 + 224
    assert layer.replicated == 2 * 8 + 64 + 6


def test_latent_biases_are_of_the_ways_down() -> None:
    plain, biased = first_layer(latent_attention=LATENT), first_layer(latent_attention=LATENT, qkv_bias=True)
    assert biased.attention_sharded == plain.attention_sharded
    assert biased.replicated - plain.replicated == 5 + 6 + 2


def test_mixture() -> None:
    layer = first_layer(experts=EXPERTS)
    assert layer.experts == 6 * 3 * 8 * 5
    assert layer.active_experts == 2 * 3 * 8 * 5
    assert layer.mlp_sharded == 3 * 8 * 4
    assert layer.replicated == 2 * 8 + 8 * 6
    assert layer.total - layer.active == 4 * 3 * 8 * 5


def test_router_bias_and_shared_gate_are_whole_on_every_rank() -> None:
    gated = EXPERTS.model_copy(update={"router_bias": True, "shared_expert_gate": True})
    assert first_layer(experts=gated).replicated - first_layer(experts=EXPERTS).replicated == 6 + 8


def test_outside_the_layers() -> None:
    model = model_with(norm=Norm.LAYER_NORM, positions=Positions.LEARNED, max_positions=32, embedding_norm=True)
    assert embedding_parameters(model) == head_parameters(model) == 800
    assert position_parameters(model) == 32 * 8
    assert embedding_norm_parameters(model) == final_norm_parameters(model) == 16
    layers = sum(layer_parameters(model, layer).total for layer in model.layers)
    assert total_parameters(model) == layers + 2 * 800 + 256 + 2 * 16


def test_what_a_model_lacks_counts_nothing() -> None:
    model = model_with(tied_embeddings=True, positions=Positions.ROTARY, max_positions=32, final_norm=False)
    assert head_parameters(model) == position_parameters(model) == 0
    assert embedding_norm_parameters(model) == final_norm_parameters(model) == mtp_parameters(model) == 0


def test_prediction_modules_stay_out_of_the_total() -> None:
    model = model_with(mtp_layers=2)
    layer = layer_parameters(model, model.layers[-1]).total
    assert mtp_parameters(model) == 2 * (layer + 2 * 8 * 8 + 3 * 8)
    assert total_parameters(model) == total_parameters(model_with())


@pytest.mark.parametrize(("hidden", "layers"), [(64, 2), (256, 3), (1024, 1)])
def test_gpt_is_the_formula_of_megatron(hidden: int, layers: int) -> None:
    model = model_with(
        hidden=hidden,
        layers=layers,
        heads=4,
        kv_heads=4,
        head_dim=hidden // 4,
        ffn_hidden=4 * hidden,
        gated_mlp=False,
        norm=Norm.LAYER_NORM,
        positions=Positions.LEARNED,
        max_positions=128,
        tied_embeddings=True,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
    )
    # Equation 2 of arXiv 2104.04473 drops the final norm: 12 l h^2 (1 + 13 / 12h + (V + s) / 12lh).
    published = 12 * layers * hidden**2 + 13 * layers * hidden + (100 + 128) * hidden
    assert total_parameters(model) == published + 2 * hidden


DIMENSIONS = st.fixed_dictionaries(
    {
        "layers": st.integers(1, 6),
        "hidden": st.integers(1, 300),
        "groups": st.integers(1, 8),
        "kv_heads": st.integers(1, 8),
        "head_dim": st.integers(1, 64),
        "ffn_hidden": st.integers(1, 300),
        "vocab": st.integers(1, 1000),
    }
)
KINDS = st.fixed_dictionaries(
    {
        "gated_mlp": st.booleans(),
        "tied_embeddings": st.booleans(),
        "norm": st.sampled_from(Norm),
        "qkv_bias": st.booleans(),
        "output_bias": st.booleans(),
        "mlp_bias": st.booleans(),
        "query_key_norm": st.booleans(),
        "embedding_norm": st.booleans(),
        "latent_attention": st.sampled_from([None, LATENT]),
        "experts": st.sampled_from([None, EXPERTS]),
    }
)


def model_of(dimensions: dict[str, int], kinds: dict[str, object]) -> Transformer:
    heads = dimensions["groups"] * dimensions["kv_heads"]
    return model_with(**{name: size for name, size in dimensions.items() if name != "groups"}, heads=heads, **kinds)


@given(DIMENSIONS, KINDS)
def test_parts_sum_to_the_total(dimensions: dict[str, int], kinds: dict[str, object]) -> None:
    model = model_of(dimensions, kinds)
    outside = (
        embedding_parameters(model)
        + head_parameters(model)
        + embedding_norm_parameters(model)
        + final_norm_parameters(model)
    )
    parts = [layer_parameters(model, layer) for layer in model.layers]
    summed = sum(
        getattr(part, field.name)
        for part in parts
        for field in dataclasses.fields(part)
        if field.name != "active_experts"
    )
    assert total_parameters(model) == outside + summed
    idle = sum(part.experts - part.active_experts for part in parts)
    assert active_parameters(model) == total_parameters(model) - idle
    assert 0 < active_parameters(model) <= total_parameters(model)


@given(DIMENSIONS, KINDS, st.sampled_from(["layers", "hidden", "groups", "vocab"]), st.integers(1, 5))
def test_counts_grow_with_every_dimension(
    dimensions: dict[str, int], kinds: dict[str, object], dimension: str, more: int
) -> None:
    larger = dimensions | {dimension: dimensions[dimension] + more}
    assert total_parameters(model_of(larger, kinds)) > total_parameters(model_of(dimensions, kinds))


@given(DIMENSIONS, st.sampled_from(["kv_heads", "head_dim", "ffn_hidden"]), st.integers(1, 5))
def test_dense_counts_grow_with_heads_and_widths(dimensions: dict[str, int], dimension: str, more: int) -> None:
    larger = dimensions | {dimension: dimensions[dimension] + more}
    assert total_parameters(model_of(larger, {})) > total_parameters(model_of(dimensions, {}))


@given(DIMENSIONS, st.sampled_from(["experts", "top_k", "ffn_hidden", "shared_ffn_hidden"]), st.integers(1, 4))
def test_active_mixtures_grow_with_what_a_token_meets(dimensions: dict[str, int], dimension: str, more: int) -> None:
    grown = getattr(EXPERTS, dimension) + more
    larger = EXPERTS.model_copy(update={dimension: min(grown, EXPERTS.experts) if dimension == "top_k" else grown})
    before, after = model_of(dimensions, {"experts": EXPERTS}), model_of(dimensions, {"experts": larger})
    assert active_parameters(after) > active_parameters(before)
    assert (total_parameters(after) > total_parameters(before)) == (dimension != "top_k")
