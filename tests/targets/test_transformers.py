"""Parameter counts of the catalog's models, and of configurations of the Hub, against transformers' own modules.

Modules are made on no device, so that no weight is; configurations are written here from the catalog's dimensions, so
that nothing is fetched. What isn't on the Hub by its own code has the architecture of what is: GPT-3, Megatron's models
and MPT with biases and learned positions that of GPT-2. Pangu's models have no module there. The
reference launcher's rotations are held against its modules too.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PretrainedConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from meshwright.catalog.lookup import entry_names, find_model
from meshwright.catalog.model_entry import ModelEntry
from meshwright.costmodels.parameters import total_parameters
from meshwright.costmodels.transformer import transformer_of
from meshwright.runtime.attention import Rotation

Fields = dict[str, Any]
CONFIGS = sorted((Path(__file__).parent.parent / "hugging_face").glob("*.json"))


def common(entry: ModelEntry) -> Fields:
    return {
        "num_hidden_layers": entry.layers,
        "hidden_size": entry.hidden,
        "intermediate_size": entry.ffn_hidden,
        "num_attention_heads": entry.heads,
        "num_key_value_heads": entry.kv_heads,
        "head_dim": entry.head_dim,
        "vocab_size": entry.vocab,
        "tie_word_embeddings": entry.tied_embeddings,
    }


def mixture(entry: ModelEntry) -> Fields:
    experts = entry.experts
    assert experts is not None
    return {"num_experts_per_tok": experts.top_k, "moe_intermediate_size": experts.ffn_hidden}


def gpt2(entry: ModelEntry) -> Fields:
    return {
        "n_layer": entry.layers,
        "n_embd": entry.hidden,
        "n_head": entry.heads,
        "n_inner": entry.ffn_hidden,
        "n_positions": entry.max_positions,
        "vocab_size": entry.vocab,
        "tie_word_embeddings": entry.tied_embeddings,
    }


def bloom(entry: ModelEntry) -> Fields:
    return {
        "n_layer": entry.layers,
        "hidden_size": entry.hidden,
        "n_head": entry.heads,
        "vocab_size": entry.vocab,
        "tie_word_embeddings": entry.tied_embeddings,
    }


def mixtral(entry: ModelEntry) -> Fields:
    assert entry.experts is not None
    return {
        **common(entry),
        "intermediate_size": entry.experts.ffn_hidden,
        "num_local_experts": entry.experts.experts,
        "num_experts_per_tok": entry.experts.top_k,
    }


def qwen3_moe(entry: ModelEntry) -> Fields:
    assert entry.experts is not None
    return {**common(entry), **mixture(entry), "num_experts": entry.experts.experts}


def llama4_text(entry: ModelEntry) -> Fields:
    experts = entry.experts
    assert experts is not None
    # Its layers alternate, and the shared expert is as wide as the others.
    assert (experts.dense_layers, experts.layer_frequency) == (1, 2)
    assert experts.shared_ffn_hidden == experts.ffn_hidden
    return {
        **common(entry),
        "intermediate_size": experts.ffn_hidden,
        "intermediate_size_mlp": entry.ffn_hidden,
        "num_local_experts": experts.experts,
        "num_experts_per_tok": experts.top_k,
        "interleave_moe_layer_step": experts.layer_frequency,
    }


def deepseek_v3(entry: ModelEntry) -> Fields:
    experts, latent = entry.experts, entry.latent_attention
    assert experts is not None
    assert latent is not None
    return {
        **{name: value for name, value in common(entry).items() if name != "head_dim"},
        **mixture(entry),
        "n_routed_experts": experts.experts,
        "n_shared_experts": experts.shared_ffn_hidden // experts.ffn_hidden,
        "first_k_dense_replace": experts.dense_layers,
        "n_group": experts.groups,
        "topk_group": experts.groups_per_token,
        "q_lora_rank": latent.query_rank,
        "kv_lora_rank": latent.kv_rank,
        "qk_nope_head_dim": latent.nope_head_dim,
        "qk_rope_head_dim": latent.rope_head_dim,
        "v_head_dim": latent.value_head_dim,
    }


def minimax(entry: ModelEntry) -> Fields:
    linear = entry.linear_attention
    assert linear is not None
    full = [(layer + 1) % linear.frequency == 0 for layer in range(entry.layers)]
    return {
        **mixtral(entry),
        "block_size": linear.block,
        "layer_types": ["full_attention" if softmax else "linear_attention" for softmax in full],
    }


# By the beginning of a model's name: the kind of module, and the fields of its configuration.
KINDS: dict[str, tuple[str, Callable[[ModelEntry], Fields]]] = {
    "bloom": ("bloom", bloom),
    "deepseek-v3": ("deepseek_v3", deepseek_v3),
    "gpt3": ("gpt2", gpt2),
    "llama-2": ("llama", common),
    "llama-3": ("llama", common),
    "llama-4": ("llama4_text", llama4_text),
    "megatron": ("gpt2", gpt2),
    "minimax": ("minimax", minimax),
    "mixtral": ("mixtral", mixtral),
    "mpt": ("gpt2", gpt2),
    "qwen3": ("qwen3_moe", qwen3_moe),
}
NAMES = [name for name in entry_names("models") if not name.startswith("pangu")]


def counted(config: PretrainedConfig) -> int:
    """Count the parameters of a module, those that are shared once."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


def ours(model: ModelEntry) -> int:
    return total_parameters(transformer_of(model))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_the_catalog_has_as_many_parameters(name: str) -> None:
    entry = find_model(name)
    kind, fields = next(found for prefix, found in KINDS.items() if name.startswith(prefix))
    assert counted(AutoConfig.for_model(kind, **fields(entry))) == ours(entry)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_configuration_of_the_hub_is_read_as_it_is_built(file: Path) -> None:
    document: Fields = json.loads(file.read_text())
    document.pop("quantization_config", None)
    text = document.get("text_config", document)
    text.pop("rope_scaling", None)  # rotations have no parameters
    assert counted(AutoConfig.for_model(text.pop("model_type"), **text)) == ours(find_model(str(file)))


@pytest.mark.parametrize("base", [10_000, 500_000])
def test_the_launcher_turns_heads_as_transformers_does(base: int) -> None:
    heads, first = torch.rand(2, 6, 3, 8, generator=torch.Generator().manual_seed(base)), 5
    config = LlamaConfig(hidden_size=24, num_attention_heads=3, head_dim=8, rope_theta=base)
    positions = torch.arange(first, first + heads.shape[1])[None]
    cosine, sine = LlamaRotaryEmbedding(config)(heads, positions)
    expected, _ = apply_rotary_pos_emb(heads.transpose(1, 2), heads.transpose(1, 2), cosine, sine)
    torch.testing.assert_close(Rotation(base=base, first_position=first)(heads), expected.transpose(1, 2))
