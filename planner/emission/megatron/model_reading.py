"""The model that arguments of Megatron-LM describe."""

import re
from typing import Any

from meshwright.catalog.document import validate
from meshwright.catalog.errors import InputError
from meshwright.catalog.model_entry import ROTARY_BASE, ModelEntry
from meshwright.planner.emission.megatron.command_line import CommandLine

SOURCE = "the arguments of a launch of Megatron-LM"


def model_of(given: CommandLine, *, file: str) -> ModelEntry:
    """Give the entry of the model. Raises InputError where an argument is missing or contradicts another."""
    heads, hidden = given.needed("num-attention-heads"), given.needed("hidden-size")
    grouped = "group-query-attention" in given
    latent = _latent(given, file=file)
    biased = "disable-bias-linear" not in given
    positions = {"rope": "rotary", "learned_absolute": "learned", "none": "rotary"}
    kind = "rope" if "use-rotary-position-embeddings" in given else given.text("position-embedding-type")
    document = {
        "name": "launched-model",
        "source": SOURCE,
        "layers": given.needed("num-layers"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": (given.whole("num-query-groups") or 1) if grouped else heads,
        "head_dim": latent["nope_head_dim"] + latent["rope_head_dim"]
        if latent
        else given.whole("kv-channels") or hidden // heads,
        "ffn_hidden": given.whole("ffn-hidden-size") or 4 * hidden,
        "gated_mlp": "swiglu" in given,
        "vocab": given.needed("vocab-size"),
        "tied_embeddings": "untie-embeddings-and-output-weights" not in given,
        "norm": "rms_norm" if given.text("normalization") == "RMSNorm" else "layer_norm",
        "positions": positions.get(kind or "learned_absolute", "rotary"),
        "max_positions": (given.whole("max-position-embeddings") or 0) if kind in (None, "learned_absolute") else 0,
        "rotary_base": given.whole("rotary-base") or ROTARY_BASE,
        "qkv_bias": biased or "add-qkv-bias" in given,
        "output_bias": biased,
        "mlp_bias": biased,
        "query_key_norm": "qk-layernorm" in given and "multi-latent-attention" not in given,
        "latent_attention": latent,
        "experts": _experts(given, file=file),
        "mtp_layers": given.whole("mtp-num-layers") or 0,
        **_window(given, file=file),
    }
    return validate(ModelEntry, document, file=file)


def _latent(given: CommandLine, *, file: str) -> dict[str, Any] | None:
    if "multi-latent-attention" not in given:
        return None
    if "kv-lora-rank" not in given:
        raise InputError("is missing", file=file, path="--kv-lora-rank")
    return {
        "query_rank": given.whole("q-lora-rank"),
        "kv_rank": given.needed("kv-lora-rank"),
        "nope_head_dim": given.whole("qk-head-dim") or 128,
        "rope_head_dim": given.whole("qk-pos-emb-head-dim") or 64,
        "value_head_dim": given.whole("v-head-dim") or 128,
    }


def _experts(given: CommandLine, *, file: str) -> dict[str, Any] | None:
    count = given.whole("num-experts")
    if count is None:
        return None
    return {
        "experts": count,
        "top_k": given.whole("moe-router-topk") or 2,
        "ffn_hidden": given.whole("moe-ffn-hidden-size") or given.needed("ffn-hidden-size"),
        "shared_ffn_hidden": given.whole("moe-shared-expert-intermediate-size") or 0,
        "shared_expert_gate": "moe-shared-expert-gate" in given,
        **_groups(given),
        **_frequency(given, file=file),
    }


def _groups(given: CommandLine) -> dict[str, int]:
    """Read the groups that a token's experts are of; without a number of them for a token there is no limit."""
    drawn = given.whole("moe-router-group-topk")
    return {"groups": given.whole("moe-router-num-groups") or 1, "groups_per_token": drawn} if drawn else {}


def _frequency(given: CommandLine, *, file: str) -> dict[str, int]:
    """Read which layers are mixtures: all, or dense ones first and then every n-th."""
    text = (given.text("moe-layer-freq") or "1").replace(" ", "")
    if text.isdigit() and int(text):
        return {"layer_frequency": int(text)}
    marks = pattern_marks(text)
    if marks is None or 1 not in marks:
        raise InputError(f"is {text!r:.60}, not a list of 0 and 1", file=file, path="--moe-layer-freq")
    dense = marks.index(1)
    rest = marks[dense:]
    for every in range(1, len(rest) + 1):
        if rest == tuple(int(layer % every == 0) for layer in range(len(rest))):
            return {"dense_layers": dense, "layer_frequency": every}
    raise InputError("is of mixtures at no even distance, which plans don't hold", file=file, path="--moe-layer-freq")


def _window(given: CommandLine, *, file: str) -> dict[str, int]:
    text = given.text("window-size")
    if text is None:
        return {}
    size = re.fullmatch(r"[(\[]?([0-9]{1,8}),0[)\]]?", text.replace(" ", ""))
    if size is None:
        raise InputError(f"is {text!r:.60}, not a window that looks back", file=file, path="--window-size")
    skip = (given.text("window-attn-skip-freq") or "").replace(" ", "")
    if skip.isdigit():
        every = int(skip)
    else:
        marks = pattern_marks(skip) if skip else ()
        every = 0 if not marks or 0 not in marks else marks.index(0) + 1
        expected = tuple(int(not every or (layer + 1) % every != 0) for layer in range(len(marks or ())))
        if marks is None or marks != expected:
            raise InputError("is of windows at no even distance", file=file, path="--window-attn-skip-freq")
    return {"window": int(size[1]) + 1, "window_frequency": every}


def pattern_marks(text: str) -> tuple[int, ...] | None:
    """Read an expression of lists, "([0]*3+[1]*58)"; None where it is none."""
    inner = text.removeprefix("(").removesuffix(")")
    marks: list[int] = []
    for part in inner.split("+"):
        found = re.fullmatch(r"[(]?\[([01](?:,[01])*)\][)]?(?:\*([0-9]{1,5}))?", part)
        if found is None:
            return None
        marks += [int(mark) for mark in found[1].split(",")] * int(found[2] or 1)
    return tuple(marks)
