"""The transformer of a case.

Tables print the dimensions that decide the cost and leave the family unsaid, so it is told by the MLP: gated ones are
Llama-like (RMS norm, rotary positions, no biases), others GPT-like (layer norm, learned positions, biases everywhere).
"""

import re
from dataclasses import replace

from meshwright.catalog.document import validate
from meshwright.catalog.errors import InputError
from meshwright.catalog.model_entry import ExpertsEntry, LatentAttentionEntry, ModelEntry, Norm, Positions
from meshwright.costmodels.transformer import Experts, Layer, Transformer, transformer_of
from meshwright.planner.accuracy.case import CaseExperts, CaseModel

GATED_VOCAB = 32_000
GPT_VOCAB = 50_257


def transformer_of_case(model: CaseModel) -> tuple[Transformer, tuple[str, ...]]:
    """Give the transformer of a case, and what had to be assumed of it, a sentence each.

    Raises InputError where a size is beyond what a model can have, and where the model has what isn't modelled.
    """
    _require_known(model)
    assumptions = []
    vocab = model.vocab
    if vocab is None:
        vocab = GATED_VOCAB if model.gated_mlp else GPT_VOCAB
        assumptions.append(f"the vocabulary isn't given: {vocab:,} tokens, as in models of this family")
    if model.moe is not None and model.moe.capacity_factor is not None and not model.moe.padded_to_capacity:
        assumptions.append("the router is taken to be balanced but for what the capacity factor drops")
    return _with_experts(model, _entry(model, vocab)), tuple(assumptions)


def _require_known(model: CaseModel) -> None:
    """Refuse a model of which a key tells what nothing here knows: whatever that is may change all."""
    unknown = [*model.unknown_keys, *(f"moe.{key}" for key in (model.moe.unknown_keys if model.moe else ()))]
    if unknown:
        raise InputError("isn't modelled", path=f"model.{unknown[0]}", hint="leave it out where it changes no cost")


def _narrowed(attention: str | None) -> dict[str, int]:
    """Give what layers attend to, as an entry has it: to the last tokens or to a chunk, and which layers to all."""
    told = (attention or "full").strip().casefold()
    found = re.fullmatch(r"(alternating full / )?(sliding window|chunked) ([1-9][0-9]{0,8})", told)
    if found is not None:
        return {
            "window" if found[2] == "sliding window" else "chunk": int(found[3]),
            "window_frequency": 2 if found[1] else 0,
        }
    if told == "full":
        return {}
    raise InputError(
        f"{attention!r:.60} isn't modelled",
        path="model.attention",
        hint='say "full", "sliding window N", "chunked N", or one of the last two behind "alternating full / "',
    )


def _load(experts: CaseExperts) -> float:
    """Give the rows of an expert over its even share: padded to its capacity, or cut to it."""
    if experts.capacity_factor is None:
        return 1.0
    return experts.capacity_factor if experts.padded_to_capacity else min(experts.capacity_factor, 1.0)


def _with_experts(model: CaseModel, dense: ModelEntry) -> Transformer:
    if model.moe is None:
        return transformer_of(dense)
    mixture = transformer_of(dense.model_copy(update={"experts": _experts(model.moe)}))
    plain = transformer_of(dense)
    chosen = zip(model.moe.in_layers(model.layers), mixture.layers, plain.layers, strict=True)
    layers = tuple(_loaded(sparse, _load(model.moe)) if has else full for has, sparse, full in chosen)
    return replace(mixture, layers=layers)


def _loaded(layer: Layer, load: float) -> Layer:
    return replace(layer, mlp=replace(layer.mlp, load=load)) if isinstance(layer.mlp, Experts) else layer


def _entry(model: CaseModel, vocab: int) -> ModelEntry:
    gated = model.gated_mlp
    document = {
        "name": model.name,
        "source": "the case",
        "layers": model.layers,
        "hidden": model.hidden,
        "heads": model.heads,
        "kv_heads": model.kv_heads or model.heads,
        "head_dim": model.head_dim or max(model.hidden // model.heads, 1),
        "ffn_hidden": _dense_ffn_hidden(model),
        "gated_mlp": gated,
        "vocab": vocab,
        "tied_embeddings": model.tied_embeddings,
        "norm": Norm.RMS_NORM if gated else Norm.LAYER_NORM,
        "positions": Positions.ROTARY if gated else Positions.LEARNED,
        "max_positions": 0 if gated else model.sequence_length,
        "qkv_bias": not gated,
        "output_bias": not gated,
        "mlp_bias": not gated,
        **_narrowed(model.attention),
        "latent_attention": _latent(model),
        "mtp_layers": model.mtp_layers,
    }
    return validate(ModelEntry, document, file="", path="model")


def _dense_ffn_hidden(model: CaseModel) -> int:
    if model.ffn_hidden is not None:
        return model.ffn_hidden
    # The schema lets it be missing only where every layer has experts, so that no layer is built with it.
    return model.moe.expert_ffn_hidden if model.moe else 4 * model.hidden


def _experts(experts: CaseExperts) -> ExpertsEntry:
    document = {
        "experts": experts.experts,
        "top_k": experts.top_k,
        "ffn_hidden": experts.expert_ffn_hidden,
        "shared_ffn_hidden": experts.shared_ffn_hidden,
        "load_spread": experts.load_spread,
        "groups": experts.n_group,
        "groups_per_token": experts.groups_per_token,
    }
    return validate(ExpertsEntry, document, file="", path="model.moe")


def _latent(model: CaseModel) -> LatentAttentionEntry | None:
    if model.mla is None:
        return None
    document = {
        "query_rank": model.mla.q_lora_rank,
        "kv_rank": model.mla.kv_lora_rank,
        "nope_head_dim": model.mla.qk_nope_head_dim,
        "rope_head_dim": model.mla.qk_rope_head_dim,
        "value_head_dim": model.mla.v_head_dim,
    }
    return validate(LatentAttentionEntry, document, file="", path="model.mla")
