"""Reading the `config.json` of a Hugging Face model as a model of the catalog."""

from pathlib import Path
from typing import Any

from meshwright.catalog.document import validate
from meshwright.catalog.errors import InputError
from meshwright.catalog.hugging_face_families import (
    Decoder,
    Gemma,
    Gemma2,
    Gemma3,
    Gpt2,
    GptNeoX,
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
)
from meshwright.catalog.hugging_face_mixtures import Deepseek, Llama4, MiniMax, Mixtral, Qwen3Moe
from meshwright.catalog.model_entry import ModelEntry

FAMILIES: dict[str, type[Decoder]] = {
    "deepseek_v2": Deepseek,
    "deepseek_v3": Deepseek,
    "gemma": Gemma,
    "gemma2": Gemma2,
    "gemma3": Gemma3,
    "gemma3_text": Gemma3,
    "gpt2": Gpt2,
    "gpt_neox": GptNeoX,
    "kimi_k2": Deepseek,
    "llama": Llama,
    "llama4": Llama4,
    "llama4_text": Llama4,
    "minimax": MiniMax,
    "minimax_m1": MiniMax,
    "minimax_text_01": MiniMax,
    "mistral": Mistral,
    "mixtral": Mixtral,
    "qwen2": Qwen2,
    "qwen3": Qwen3,
    "qwen3_moe": Qwen3Moe,
}
_MARKS = ("model_type", "architectures", "transformers_version", "num_hidden_layers", "n_layer", "text_config")


def is_hugging_face_config(document: object) -> bool:
    """Tell a Hugging Face configuration from a model of our own catalog, by keys that only the former has."""
    return isinstance(document, dict) and any(mark in document for mark in _MARKS)


def read_hugging_face_config(document: object, *, file: str) -> ModelEntry:
    """Give the model that a parsed `config.json` describes; of a multimodal one its text model.

    It is named after `_name_or_path`, else after the file, or its folder where that is called `config`.
    Raises InputError with the path to the field: an unknown family, a wrong type, a missing key, an impossible value.
    """
    if not isinstance(document, dict):
        raise InputError("is not a Hugging Face config: it holds no keys", file=file)
    config, path = _text_config(document, file=file)
    family = FAMILIES[_model_type(config, file=file, path=path)]
    named = {"name": _name(document, file=file), "source": f"Hugging Face config {file}"}
    return validate(ModelEntry, named | validate(family, config, file=file, path=path).fields(), file=file, path=path)


def _text_config(document: dict[Any, Any], *, file: str) -> tuple[dict[Any, Any], str]:
    """Give the part about the text model and the path to it; what it leaves out of these two keys, the whole says."""
    nested = document.get("text_config")
    if nested is None:
        return document, ""
    if not isinstance(nested, dict):
        raise InputError("must hold the text model's keys", file=file, path="text_config")
    inherited = {key: document[key] for key in ("model_type", "tie_word_embeddings") if key in document}
    return inherited | nested, "text_config"


def _model_type(config: dict[Any, Any], *, file: str, path: str) -> str:
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in FAMILIES:
        return model_type
    where = f"{path}.model_type".removeprefix(".")
    known = f"known: {', '.join(FAMILIES)}"
    if model_type is None:
        raise InputError("is missing", file=file, path=where, hint=known)
    raise InputError(f"{model_type!r:.60} is not a model type that can be planned", file=file, path=where, hint=known)


def _name(document: dict[Any, Any], *, file: str) -> str:
    given = document.get("_name_or_path")
    from_hub = Path(given).name if isinstance(given, str) and given.isprintable() else ""
    place = Path(file)
    from_file = place.parent.name if place.stem == "config" and place.parent.name else place.stem
    return (from_hub or from_file)[:200]
