"""Hugging Face configs: real ones counted exactly, each trap of the format, and every way to get one wrong."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.catalog.errors import InputError
from meshwright.catalog.hugging_face import FAMILIES, is_hugging_face_config, read_hugging_face_config
from meshwright.catalog.lookup import find_model
from meshwright.catalog.model_entry import ModelEntry
from meshwright.costmodels.parameters import embedding_parameters, total_parameters
from meshwright.costmodels.transformer import Experts, Transformer, transformer_of

CONFIGS = Path(__file__).parent / "hugging_face"


def config(name: str, **changes: object) -> dict[str, Any]:
    """Give a shipped config with some keys replaced."""
    document: dict[str, Any] = json.loads((CONFIGS / f"{name}.json").read_text("utf-8"))
    return document | changes


def config_without(name: str, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config(name).items() if key not in keys}


def entry_of(document: object) -> ModelEntry:
    return read_hugging_face_config(document, file="config.json")


def model_of(document: object) -> Transformer:
    return transformer_of(entry_of(document))


def windows(document: object) -> list[int | None]:
    return [layer.attention.window for layer in model_of(document).layers]


def mixtures(document: object) -> list[bool]:
    return [isinstance(layer.mlp, Experts) for layer in model_of(document).layers]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("deepseek-v2-lite", 15_706_484_224),
        ("deepseek-v3", 671_026_404_352),
        ("gemma-2-9b", 9_241_705_984),
        ("gemma-3-1b", 999_885_952),
        ("gemma-7b", 8_537_680_896),
        ("gpt-neox-20b", 20_554_567_680),
        ("gpt2", 124_439_808),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-7b", 6_738_415_616),
        ("minimax-text-01", 456_089_655_296),
        ("mistral-7b-v0.1", 7_241_732_096),
        ("mistral-nemo-12b", 12_247_782_400),
        ("mixtral-8x7b", 46_702_792_704),
        ("qwen2-7b", 7_615_616_512),
        ("qwen3-30b-a3b", 30_532_122_624),
        ("qwen3-8b", 8_190_735_360),
    ],
)
def test_count_is_that_of_the_weights(name: str, count: int) -> None:
    assert total_parameters(transformer_of(find_model(str(CONFIGS / f"{name}.json")))) == count


def test_text_model_of_a_multimodal_one_has_its_class_defaults() -> None:
    model = transformer_of(find_model(str(CONFIGS / "gemma-3-4b.json")))
    # Gemma 3 report (arXiv 2503.19786), Table 1: 3,209M parameters outside embedding and vision tower.
    assert total_parameters(model) - embedding_parameters(model) == pytest.approx(3_209e6, abs=0.5e6)
    assert model.vocab == 262_208


@pytest.mark.parametrize("name", ["llama-3.1-8b", "mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v3"])
def test_config_gives_the_model_of_the_catalog(name: str) -> None:
    from_config = transformer_of(find_model(str(CONFIGS / f"{name}.json")))
    assert dataclasses.replace(from_config, name=name) == transformer_of(find_model(name))


class TestRecognition:
    @pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.json")), ids=lambda path: path.stem)
    def test_configs_are_recognised(self, path: Path) -> None:
        assert is_hugging_face_config(json.loads(path.read_text("utf-8")))

    @pytest.mark.parametrize("document", [None, [], "llama", 3, {}, {"layers": 2, "hidden": 8}])
    def test_other_documents_are_not(self, document: object) -> None:
        assert not is_hugging_face_config(document)

    def test_own_models_are_not(self) -> None:
        assert not is_hugging_face_config(find_model("deepseek-v3").model_dump())


class TestName:
    @pytest.mark.parametrize(
        ("file", "name"),
        [
            ("models/Llama-3-8B/config.json", "Llama-3-8B"),
            ("config.json", "config"),
            ("models/tiny-llama.json", "tiny-llama"),
        ],
    )
    def test_comes_from_the_file_or_its_folder(self, file: str, name: str) -> None:
        assert read_hugging_face_config(config("gpt2"), file=file).name == name

    @pytest.mark.parametrize(
        ("given_name", "name"),
        [
            ("meta-llama/Meta-Llama-3-8B", "Meta-Llama-3-8B"),
            ("", "config"),
            (7, "config"),
            ("\ud800", "config"),
            ("x" * 300, "x" * 200),
        ],
    )
    def test_comes_from_the_hub_where_it_is_given(self, given_name: object, name: str) -> None:
        assert entry_of(config("gpt2", _name_or_path=given_name)).name == name


class TestTraps:
    @pytest.mark.parametrize(
        ("name", "tied"), [("llama-7b", False), ("gpt2", True), ("gemma-7b", True), ("gpt-neox-20b", False)]
    )
    def test_head_is_tied_by_the_default_of_the_class(self, name: str, tied: bool) -> None:
        assert model_of(config_without(name, "tie_word_embeddings")).tied_embeddings is tied

    def test_tie_of_the_whole_holds_where_the_text_model_says_nothing(self) -> None:
        whole = config("gemma-3-4b", tie_word_embeddings=False)
        assert not model_of(whole).tied_embeddings
        assert model_of(whole | {"text_config": whole["text_config"] | {"tie_word_embeddings": True}}).tied_embeddings

    @pytest.mark.parametrize("heads", [{}, {"num_key_value_heads": None}])
    def test_absent_key_value_heads_are_all_heads(self, heads: dict[str, None]) -> None:
        assert entry_of(config("llama-7b") | heads).kv_heads == 32

    @pytest.mark.parametrize("name", ["mistral-7b-v0.1", "mixtral-8x7b"])
    def test_absent_key_value_heads_are_eight_for_mistral(self, name: str) -> None:
        assert entry_of(config_without(name, "num_key_value_heads")).kv_heads == 8
        assert entry_of(config(name, num_key_value_heads=None)).kv_heads == 32

    def test_null_head_width_is_the_share_of_the_hidden_size(self) -> None:
        assert entry_of(config("llama-3.1-8b", head_dim=None)).head_dim == 128
        assert entry_of(config("mistral-nemo-12b", head_dim=None)).head_dim == 160

    @pytest.mark.parametrize(("name", "width"), [("gemma-7b", 256), ("qwen3-8b", 128), ("qwen3-30b-a3b", 64)])
    def test_absent_head_width_is_that_of_the_class(self, name: str, width: int) -> None:
        assert entry_of(config_without(name, "head_dim")).head_dim == width

    def test_latent_attention_ignores_head_width_and_key_value_heads(self) -> None:
        entry = entry_of(config("deepseek-v3", head_dim=64, num_key_value_heads=3))
        assert entry == entry_of(config("deepseek-v3"))
        assert entry.head_dim == 192

    def test_null_inner_width_is_four_times_the_hidden_size(self) -> None:
        assert entry_of(config("gpt2", n_inner=None)).ffn_hidden == 3072
        assert entry_of(config("gpt2", n_inner=1000)).ffn_hidden == 1000

    def test_qwen_2_has_biases_that_no_key_mentions(self) -> None:
        entry = entry_of(config("qwen2-7b"))
        assert entry.qkv_bias
        assert not entry.output_bias

    @pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-8b", "qwen3-30b-a3b", "gemma-2-9b", "deepseek-v3"])
    def test_attention_bias_is_of_all_four_matrices(self, name: str) -> None:
        plain, biased = entry_of(config(name)), entry_of(config(name, attention_bias=True))
        assert not plain.qkv_bias
        assert biased == plain.model_copy(update={"qkv_bias": True, "output_bias": True})

    def test_neox_without_attention_bias(self) -> None:
        entry = entry_of(config("gpt-neox-20b", attention_bias=False))
        assert (entry.qkv_bias, entry.output_bias, entry.mlp_bias) == (False, False, True)

    def test_norms(self) -> None:
        assert [entry_of(config(name)).norms_per_layer for name in ("gemma-7b", "gemma-2-9b", "gemma-3-1b")] == [
            2,
            4,
            4,
        ]
        assert [name for name in ("qwen2-7b", "qwen3-8b", "gemma-3-1b") if entry_of(config(name)).query_key_norm] == [
            "qwen3-8b",
            "gemma-3-1b",
        ]

    @pytest.mark.parametrize("shared", [0, None])
    def test_no_shared_experts(self, shared: int | None) -> None:
        experts = entry_of(config("deepseek-v3", n_shared_experts=shared)).experts
        assert experts is not None
        assert experts.shared_ffn_hidden == 0

    def test_shared_experts_are_one_wide_mlp(self) -> None:
        experts = entry_of(config("deepseek-v2-lite")).experts
        assert experts is not None
        assert experts.shared_ffn_hidden == 2 * 1408

    def test_groups_of_experts_that_a_token_s_are_in(self) -> None:
        def groups(name: str, **changes: object) -> tuple[int, int]:
            experts = entry_of(config(name, **changes)).experts
            assert experts is not None
            return experts.groups, experts.groups_per_token

        assert groups("deepseek-v3") == (8, 4)
        assert groups("deepseek-v3", n_group=None, topk_group=None) == (1, 1)
        assert groups("deepseek-v2-lite", n_group=8, topk_group=3, topk_method="group_limited_greedy") == (8, 3)
        assert groups("deepseek-v2-lite", n_group=8, topk_group=3, topk_method="greedy") == (1, 1)

    def test_prediction_modules(self) -> None:
        assert entry_of(config("deepseek-v3")).mtp_layers == 1
        assert entry_of(config("deepseek-v2-lite")).mtp_layers == 0

    def test_kimi_k2_reads_as_deepseek(self) -> None:
        assert model_of(config("deepseek-v3", model_type="kimi_k2")) == model_of(config("deepseek-v3"))

    def test_number_of_experts_by_its_newer_name(self) -> None:
        renamed = config_without("qwen3-30b-a3b", "num_experts") | {"num_local_experts": 128}
        assert model_of(renamed) == model_of(config("qwen3-30b-a3b"))


class TestWindows:
    def test_mistral_windows_every_layer(self) -> None:
        assert windows(config("mistral-7b-v0.1")) == [4096] * 32
        assert windows(config("mistral-7b-v0.1", sliding_window=None)) == [None] * 32

    def test_gemma_2_alternates_and_starts_with_a_window(self) -> None:
        assert windows(config("gemma-2-9b")) == [4096, None] * 21

    def test_gemma_3_has_five_windows_to_a_full_layer(self) -> None:
        assert windows(config("gemma-3-1b")) == ([512] * 5 + [None]) * 4 + [512] * 2
        assert windows(config("gemma-3-1b", sliding_window_pattern=2)) == [512, None] * 13

    def test_gemma_1_has_none(self) -> None:
        assert windows(config("gemma-7b", sliding_window=4096)) == [None] * 28

    def test_layer_types_decide(self) -> None:
        types = ["sliding_attention", "sliding_attention", "full_attention"] * 14
        assert windows(config("gemma-2-9b", layer_types=types)) == [4096, 4096, None] * 14
        assert windows(config("gemma-2-9b", layer_types=["full_attention"] * 42)) == [None] * 42
        assert windows(config("gemma-2-9b", layer_types=["sliding_attention"] * 42)) == [4096] * 42

    def test_qwen_counts_its_window_only_where_it_is_switched_on(self) -> None:
        assert windows(config("qwen2-7b", sliding_window=512, max_window_layers=0)) == [None] * 28
        on = config("qwen2-7b", use_sliding_window=True, sliding_window=512)
        assert windows(on) == [None] * 28
        assert windows(on | {"max_window_layers": 0}) == [512] * 28
        assert windows(on | {"max_window_layers": 5, "sliding_window": None}) == [None] * 28

    def test_qwen_mixture_windows_every_layer(self) -> None:
        on = config("qwen3-30b-a3b", use_sliding_window=True, sliding_window=512)
        assert windows(on) == [512] * 48
        assert windows(config("qwen3-30b-a3b", sliding_window=512)) == [None] * 48

    @given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 9999))
    def test_layer_types_are_read_as_they_stand(self, layers: int, frequency: int, window: int) -> None:
        full = [frequency > 0 and layer % frequency == 0 for layer in range(1, layers + 1)]
        document = config(
            "gemma-3-1b",
            num_hidden_layers=layers,
            layer_types=["full_attention" if is_full else "sliding_attention" for is_full in full],
            sliding_window=window,
        )
        assert windows(document) == [None if is_full else window for is_full in full]


class TestLinearAttention:
    def test_minimax_is_the_model_of_the_catalog(self) -> None:
        ours = transformer_of(find_model("minimax-text-01"))
        assert dataclasses.replace(model_of(config("minimax-text-01")), name=ours.name) == ours

    def test_numbers_say_the_same_as_names(self) -> None:
        numbered = config_without("minimax-text-01", "layer_types") | {"attn_type_list": ([0] * 7 + [1]) * 10}
        for kind in ("minimax_text_01", "minimax_m1"):
            assert model_of(numbered | {"model_type": kind}) == model_of(config("minimax-text-01"))

    def test_full_attention_everywhere_is_a_plain_mixture(self) -> None:
        entry = entry_of(config("minimax-text-01", layer_types=["full_attention"] * 80))
        assert entry.linear_attention is None


class TestMixtures:
    def test_leading_dense_layers(self) -> None:
        assert mixtures(config("deepseek-v2-lite")) == [False] + [True] * 26

    def test_deepseek_counts_its_frequency_from_the_first_layer(self) -> None:
        document = config("deepseek-v2-lite", first_k_dense_replace=4, moe_layer_freq=3)
        assert [layer for layer, mixture in enumerate(mixtures(document)) if mixture] == list(range(6, 27, 3))

    def test_all_layers_dense(self) -> None:
        assert mixtures(config("deepseek-v2-lite", first_k_dense_replace=27)) == [False] * 27
        assert mixtures(config("qwen3-30b-a3b", decoder_sparse_step=49)) == [False] * 48

    @given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 30))
    def test_qwen_sparse_step_and_dense_layers(self, layers: int, step: int, dense: int) -> None:
        document = config(
            "qwen3-30b-a3b",
            num_hidden_layers=layers,
            decoder_sparse_step=step,
            mlp_only_layers=list(range(dense)),
        )
        assert mixtures(document) == [layer >= dense and (layer + 1) % step == 0 for layer in range(layers)]


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        ([], "", "holds no keys"),
        ({"architectures": ["LlamaForCausalLM"]}, "model_type", "missing"),
        ({"model_type": "t5"}, "model_type", "'t5'"),
        ({"model_type": ["llama"]}, "model_type", "model type"),
        ({"model_type": "gemma3", "text_config": [1]}, "text_config", "keys"),
        ({"model_type": "llava", "text_config": {"model_type": "opt"}}, "text_config.model_type", "'opt'"),
        (config_without("llama-3.1-8b", "hidden_size"), "hidden_size", "missing"),
        (config_without("gpt2", "n_layer"), "n_layer", "missing"),
        (config_without("qwen3-30b-a3b", "num_experts"), "num_experts", "missing"),
        (config_without("deepseek-v2-lite", "q_lora_rank"), "q_lora_rank", "missing"),
        (config("llama-3.1-8b", hidden_size="4096"), "hidden_size", "a whole number"),
        (config("llama-3.1-8b", hidden_size=4096.5), "hidden_size", "a whole number"),
        (config("llama-3.1-8b", hidden_size=True), "hidden_size", "a whole number"),
        (config("llama-3.1-8b", hidden_size=None), "hidden_size", "a whole number"),
        (config("llama-3.1-8b", vocab_size=float("nan")), "vocab_size", "a whole number"),
        (config("llama-3.1-8b", num_hidden_layers=0), "num_hidden_layers", "greater"),
        (config("llama-3.1-8b", num_hidden_layers=-32), "num_hidden_layers", "greater"),
        (config("llama-3.1-8b", num_hidden_layers=10**12), "num_hidden_layers", "less"),
        (config("llama-3.1-8b", vocab_size=10**400), "vocab_size", "less"),
        (config("llama-3.1-8b", tie_word_embeddings="no"), "tie_word_embeddings", "true or false"),
        (config("llama-3.1-8b", attention_bias=1), "attention_bias", "true or false"),
        (config("llama-3.1-8b", num_key_value_heads=5), "num_key_value_heads", "multiple"),
        (config("llama-3.1-8b", hidden_size=4100), "head_dim", "multiple"),
        (config("gpt2", n_head=7), "n_head", "multiple"),
        (config("gpt-neox-20b", num_attention_heads=7), "num_attention_heads", "multiple"),
        (
            config_without("mistral-7b-v0.1", "num_key_value_heads") | {"num_attention_heads": 4},
            "num_key_value_heads",
            "4",
        ),
        (config("mixtral-8x7b", num_experts_per_tok=9), "num_experts_per_tok", "9 of 8"),
        (config("qwen3-30b-a3b", num_experts_per_tok=129), "num_experts_per_tok", "129 of 128"),
        (config("deepseek-v3", num_experts_per_tok=257), "num_experts_per_tok", "257 of 256"),
        (config("deepseek-v3", n_group=7), "n_group", "256 experts can't be shared evenly by 7 groups"),
        (config("deepseek-v3", n_group=64, topk_group=1), "topk_group", "hold 4 experts, fewer than the 8 of a token"),
        (config("qwen3-30b-a3b", mlp_only_layers=[20]), "mlp_only_layers", "can't be planned yet"),
        (config("qwen3-30b-a3b", mlp_only_layers=[-1]), "mlp_only_layers.0", "greater"),
        (config("qwen3-30b-a3b", decoder_sparse_step=0), "decoder_sparse_step", "greater"),
        (config("deepseek-v3", moe_layer_freq=0), "moe_layer_freq", "greater"),
        (config("deepseek-v3", first_k_dense_replace=-1), "first_k_dense_replace", "greater"),
        (config("gemma-2-9b", layer_types=["full_attention"]), "layer_types", "lists 1"),
        (
            config("gemma-2-9b", layer_types=["full_attention", "sliding_attention"] * 21),
            "layer_types",
            "can't be planned yet",
        ),
        (config("gemma-2-9b", layer_types=["linear_attention"] * 42), "layer_types", "not linearly"),
        (config_without("minimax-text-01", "layer_types"), "layer_types", "missing"),
        (config("minimax-text-01", layer_types=["sliding_attention"] * 80), "layer_types", "or linearly"),
        (config("minimax-text-01", layer_types=[2] * 80), "layer_types.0", "linear_attention"),
        (config("minimax-text-01", layer_types=["full_attention"]), "layer_types", "lists 1"),
        (
            config("qwen2-7b", use_sliding_window=True, max_window_layers=14),
            "max_window_layers",
            "can't be planned yet",
        ),
        (config("deepseek-v3", n_shared_experts=4883), "n_shared_experts", "10,000,384 wide; at most 10,000,000"),
        (config("deepseek-v3", qk_nope_head_dim=10_000_000), "qk_rope_head_dim", "makes a head 10,000,064 wide"),
        (config("gpt2", n_embd=12 * 300_000), "n_inner", "by default 4 times n_embd, 14,400,000 wide"),
        (
            config("gemma-3-4b", text_config={"model_type": "gemma3_text", "hidden_size": 0}),
            "text_config.num_hidden_layers",
            "missing",
        ),
    ],
)
def test_bad_config_names_the_field(document: object, path: str, words: str) -> None:
    with pytest.raises(InputError) as raised:
        read_hugging_face_config(document, file="some/config.json")
    assert (raised.value.file, raised.value.path) == ("some/config.json", path)
    assert words in raised.value.message
    assert "\n" not in raised.value.message


def test_unknown_family_is_told_the_known_ones() -> None:
    with pytest.raises(InputError) as raised:
        entry_of({"model_type": "t5"})
    assert all(family in raised.value.hint for family in FAMILIES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=5,
)


@given(st.data(), st.sampled_from(sorted(path.stem for path in CONFIGS.glob("*.json"))))
def test_any_one_value_gives_a_model_or_one_clear_error(data: st.DataObject, name: str) -> None:
    document = config(name)
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(JSON | st.integers(-2, 70_000) | st.integers(-2, 20_000_000))
    try:
        model = model_of(document)
    except InputError as error:
        where = error.path.partition(".")[0]
    else:
        where = key
        assert total_parameters(model) > 0
    assert where in {*document, "head_dim", "num_key_value_heads", "n_inner"}


# Meta's files of Scout and Maverick, whose other keys are the class's defaults.
SCOUT: dict[str, Any] = {
    "model_type": "llama4_text",
    "no_rope_layers": [1, 1, 1, 0] * 12,
    "moe_layers": list(range(48)),
}
MAVERICK: dict[str, Any] = {
    "model_type": "llama4_text",
    "num_local_experts": 128,
    "interleave_moe_layer_step": 2,
    "layer_types": (["chunked_attention"] * 3 + ["full_attention"]) * 12,
}


def chunks(document: object) -> list[int | None]:
    return [layer.attention.chunk for layer in model_of(document).layers]


@pytest.mark.parametrize("document", [SCOUT, MAVERICK, {"model_type": "llama4_text"}])
def test_llama_4_attends_within_chunks_but_in_every_fourth_layer(document: dict[str, Any]) -> None:
    assert chunks(document) == [8192, 8192, 8192, None] * 12
    assert windows(document) == [None] * 48


def test_llama_4_without_chunks_or_rotary_positions_in_all_layers() -> None:
    assert chunks(SCOUT | {"attention_chunk_size": None}) == [None] * 48
    assert chunks(SCOUT | {"no_rope_layers": [1] * 48}) == [8192] * 48
    assert chunks(SCOUT | {"layer_types": ["full_attention"] * 48}) == [None] * 48
    assert chunks(SCOUT | {"no_rope_layers": [], "no_rope_layer_interval": 2}) == [8192, None] * 24


def test_llama_4_s_mixtures_and_weights() -> None:
    assert mixtures(SCOUT) == [True] * 48
    assert mixtures(MAVERICK) == [False, True] * 24
    assert mixtures(SCOUT | {"moe_layers": [], "num_local_experts": 0, "num_experts_per_tok": 0}) == [False] * 48
    # Scout, a layer: attention 5120 x (2 x 5120 + 2 x 1024), 17 experts of 3 x 5120 x 8192, a router of 5120 x 16 and
    # two norms. Two matrices of 202,048 x 5120, and a norm.
    layer = 5120 * 12_288 + 17 * 3 * 5120 * 8192 + 5120 * 16 + 2 * 5120
    assert total_parameters(model_of(SCOUT)) == 48 * layer + 2 * 202_048 * 5120 + 5120
    named = entry_of(MAVERICK).model_dump() | {"name": "", "source": "", "published_parameters": None}
    shipped = find_model("llama-4-maverick").model_dump() | {"name": "", "source": "", "published_parameters": None}
    assert named == shipped


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        ({"layer_types": ["sliding_attention"] * 48}, "layer_types", "within chunks, not within a window"),
        ({"layer_types": ["full_attention"] * 47}, "layer_types", "lists 47 layers"),
        ({"layer_types": None, "no_rope_layers": [0, 1, 1, 1] * 12}, "no_rope_layers", "every n-th layer"),
        ({"moe_layers": [1, 2, 4]}, "moe_layers", "every n-th layer"),
        ({"num_experts_per_tok": 200}, "num_experts_per_tok", "200 of 128"),
    ],
)
def test_llama_4_s_mistakes(changes: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        entry_of(MAVERICK | changes)
    assert caught.value.path is not None
    assert caught.value.path.startswith(path)


def test_other_families_have_no_chunks() -> None:
    with pytest.raises(InputError, match="within a window, not within chunks"):
        entry_of(config("gemma-2-9b", layer_types=["chunked_attention"] * 42))


def test_dropout_is_the_config_s_or_its_class_s() -> None:
    assert entry_of(config("gpt2")).trains_with_dropout
    assert not entry_of(config("gpt2", resid_pdrop=0.0)).trains_with_dropout
    assert not entry_of(config("gpt-neox-20b")).trains_with_dropout
    assert entry_of(config("gpt-neox-20b", hidden_dropout=0.1)).trains_with_dropout
    assert not entry_of(config("llama-7b")).trains_with_dropout


@pytest.mark.parametrize(
    ("name", "changes", "base"),
    [
        ("llama-3.1-8b", {}, 500_000),
        ("llama-3.1-8b", {"rope_theta": None}, 10_000),
        ("llama-3.1-8b", {"rope_theta": None, "rope_parameters": {"rope_theta": 250_000.0}}, 250_000),
        ("mixtral-8x7b", {"rope_theta": None}, 1_000_000),
        ("gpt2", {}, 10_000),
    ],
)
def test_rotary_base_is_the_config_s_or_its_class_s(name: str, changes: dict[str, Any], base: int) -> None:
    document = config(name, **changes)
    assert read_hugging_face_config(document, file="config.json").rotary_base == base
