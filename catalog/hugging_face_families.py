"""What each family of Hugging Face `config.json` says, and what its class adds where the file is silent.

Facts are those of the configuration and modelling classes of transformers 5. A check stands at the field that its
message should point to, so a field comes after those that its check looks at.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from meshwright.catalog.entry import Count
from meshwright.catalog.model_entry import LARGEST_DIMENSION, ROTARY_BASE, Dimension, LayerCount, Norm, Positions

Flag = Annotated[bool, Field(strict=True)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Index = Annotated[int, Field(ge=0, le=10_000, strict=True)]
RotaryBase = Annotated[float, Field(ge=1, le=1e9)]


class LayerType(StrEnum):
    """How far a layer attends, as `layer_types` says it."""

    FULL = "full_attention"
    SLIDING = "sliding_attention"
    CHUNKED = "chunked_attention"
    LINEAR = "linear_attention"


class RotaryParameters(BaseModel):
    """How transformers 5 says what earlier versions said by `rope_theta`; by kind of layer it isn't read."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    rope_theta: RotaryBase | None = None


class Decoder(BaseModel):
    """What all families share. Keys that decide neither a count nor a cost are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, validate_default=True)

    num_hidden_layers: LayerCount
    hidden_size: Dimension
    num_attention_heads: Dimension
    vocab_size: Dimension
    tie_word_embeddings: Flag = False
    rope_theta: RotaryBase | None = None
    rope_parameters: RotaryParameters | None = None

    usual_rotary_base: ClassVar[int] = ROTARY_BASE

    def fields(self) -> dict[str, Any]:
        """Give the fields of the ModelEntry, without name and source; a subclass adds its own."""
        return {
            "layers": self.num_hidden_layers,
            "hidden": self.hidden_size,
            "heads": self.num_attention_heads,
            "kv_heads": self.num_attention_heads,
            "head_dim": self.hidden_size // self.num_attention_heads,
            "vocab": self.vocab_size,
            "tied_embeddings": self.tie_word_embeddings,
            "rotary_base": self._rotary_base(),
        }

    def _rotary_base(self) -> int:
        nested = self.rope_parameters.rope_theta if self.rope_parameters else None
        return round(self.rope_theta or nested or self.usual_rotary_base)


def _whole_heads(heads: int, info: ValidationInfo) -> int:
    hidden = info.data.get("hidden_size", 0)
    if hidden % heads:
        raise ValueError(f"the hidden size {hidden} isn't a multiple of {heads} heads")
    return heads


def require_width(width: int, *, of: str) -> None:
    """Raise ValueError where a width that several fields make together is beyond what a dimension may be."""
    if width > LARGEST_DIMENSION:
        raise ValueError(f"makes {of} {width:,} wide; at most {LARGEST_DIMENSION:,} can be planned")


class Gpt2(Decoder):
    """GPT-2: learned positions, layer norm, biases, and names of its own."""

    num_hidden_layers: LayerCount = Field(validation_alias="n_layer")
    hidden_size: Dimension = Field(validation_alias="n_embd")
    num_attention_heads: Dimension = Field(validation_alias="n_head")
    tie_word_embeddings: Flag = True
    n_inner: Dimension | None = None
    n_positions: Dimension
    resid_pdrop: Rate = 0.1

    _heads = field_validator("num_attention_heads")(_whole_heads)

    @field_validator("n_inner")
    @classmethod
    def _inner_width(cls, inner: int | None, info: ValidationInfo) -> int | None:
        require_width(inner or 4 * info.data.get("hidden_size", 0), of="the MLP, by default 4 times n_embd,")
        return inner

    def fields(self) -> dict[str, Any]:
        """Add the MLP, 4 times the hidden size where `n_inner` is null, and the biases."""
        return super().fields() | {
            "ffn_hidden": self.n_inner or 4 * self.hidden_size,
            "gated_mlp": False,
            "norm": Norm.LAYER_NORM,
            "positions": Positions.LEARNED,
            "max_positions": self.n_positions,
            "dropout": self.resid_pdrop > 0,
            "qkv_bias": True,
            "output_bias": True,
            "mlp_bias": True,
        }


class GptNeoX(Decoder):
    """GPT-NeoX and Pythia: rotary positions, layer norm, biases; two norms a layer, parallel residual or not."""

    intermediate_size: Dimension
    attention_bias: Flag = True
    hidden_dropout: Rate = 0.0

    _heads = field_validator("num_attention_heads")(_whole_heads)

    def fields(self) -> dict[str, Any]:
        """Add the MLP and the biases; `attention_bias` is of all four attention matrices."""
        return super().fields() | {
            "ffn_hidden": self.intermediate_size,
            "gated_mlp": False,
            "norm": Norm.LAYER_NORM,
            "dropout": self.hidden_dropout > 0,
            "qkv_bias": self.attention_bias,
            "output_bias": self.attention_bias,
            "mlp_bias": True,
        }


class GroupedDecoder(Decoder):
    """Grouped-query attention, a gated MLP and RMS norm; the base of most families."""

    intermediate_size: Dimension
    num_key_value_heads: Dimension | None = None
    head_dim: Dimension | None = None

    @field_validator("num_key_value_heads")
    @classmethod
    def _whole_groups(cls, kv_heads: int | None, info: ValidationInfo) -> int | None:
        heads = info.data.get("num_attention_heads", 0)
        if kv_heads is not None and heads % kv_heads:
            raise ValueError(f"num_attention_heads {heads} isn't a multiple of {kv_heads}")
        return kv_heads

    @field_validator("head_dim")
    @classmethod
    def _known_width(cls, head_dim: int | None, info: ValidationInfo) -> int | None:
        hidden, heads = info.data.get("hidden_size", 0), info.data.get("num_attention_heads", 1)
        if head_dim is None and hidden % heads:
            raise ValueError(f"must be given where hidden_size {hidden} isn't a multiple of {heads} heads")
        return head_dim

    def fields(self) -> dict[str, Any]:
        """Add groups, head width and MLP; absent, they follow from the heads and the hidden size."""
        return super().fields() | {
            "kv_heads": self.num_key_value_heads or self.num_attention_heads,
            "head_dim": self.head_dim or self.hidden_size // self.num_attention_heads,
            "ffn_hidden": self.intermediate_size,
            "gated_mlp": True,
        }


class Llama(GroupedDecoder):
    """Llama 1 to 3."""

    attention_bias: Flag = False
    mlp_bias: Flag = False

    def fields(self) -> dict[str, Any]:
        """Add the biases."""
        return super().fields() | biases(attention=self.attention_bias) | {"mlp_bias": self.mlp_bias}


def biases(*, attention: bool) -> dict[str, Any]:
    """Give the fields that `attention_bias` sets: it is of all four matrices of the attention."""
    return {"qkv_bias": attention, "output_bias": attention}


class WindowedDecoder(GroupedDecoder):
    """Some layers attend only to the last `sliding_window` tokens.

    Where `layer_types` is absent, every `full_every`-th layer attends to the full sequence, none where it is 0.
    """

    full_every: ClassVar[int] = 0

    sliding_window: Dimension | None = None
    layer_types: list[LayerType] | None = None

    @field_validator("layer_types")
    @classmethod
    def _regular_windows(cls, types: list[LayerType] | None, info: ValidationInfo) -> list[LayerType] | None:
        layers = info.data.get("num_hidden_layers")
        if types is None or layers is None:
            return types
        if len(types) != layers:
            raise ValueError(f"lists {len(types)} layers, but num_hidden_layers is {layers}")
        if not {LayerType.CHUNKED, LayerType.LINEAR}.isdisjoint(types):
            raise ValueError("layers of this family attend within a window, not within chunks and not linearly")
        if full_layer_frequency(types) is None:
            raise ValueError("full attention must come at every n-th layer; other patterns can't be planned yet")
        return types

    @property
    def window_frequency(self) -> int:
        """Every which layer attends to the full sequence: 1 for all, 0 for none."""
        if self.sliding_window is None:
            return 1
        if self.layer_types is None:
            return self.full_every
        return full_layer_frequency(self.layer_types) or 0

    def fields(self) -> dict[str, Any]:
        """Add the window, where some layer has one."""
        frequency = self.window_frequency
        return super().fields() | (
            {} if frequency == 1 else {"window": self.sliding_window, "window_frequency": frequency}
        )


def full_layer_frequency(types: Sequence[LayerType]) -> int | None:
    """Give n where just every n-th layer attends to the full sequence, 0 where none does, None for another pattern."""
    first = types.index(LayerType.FULL) + 1 if LayerType.FULL in types else 0
    regular = all(
        (kind is LayerType.FULL) == (first > 0 and position % first == 0) for position, kind in enumerate(types, 1)
    )
    return first if regular else None


class Mistral(WindowedDecoder):
    """Mistral: Llama without biases; where a window is given it is every layer's."""

    num_key_value_heads: Dimension | None = 8
    sliding_window: Dimension | None = 4096


class Qwen2(WindowedDecoder):
    """Qwen 2 and 2.5: biases on query, key and value, which no key mentions.

    The window counts only where `use_sliding_window` is set, and then from layer `max_window_layers` on.
    """

    num_key_value_heads: Dimension | None = 32
    sliding_window: Dimension | None = 4096
    use_sliding_window: Flag = False
    max_window_layers: Index = 28

    @field_validator("max_window_layers")
    @classmethod
    def _all_or_none(cls, first: int, info: ValidationInfo) -> int:
        data = info.data
        windowed = data.get("use_sliding_window") and data.get("sliding_window") and not data.get("layer_types")
        if windowed and 0 < first < data.get("num_hidden_layers", 0):
            raise ValueError(f"a window from layer {first} on can't be planned yet, only one of all layers or none")
        return first

    @property
    def window_frequency(self) -> int:
        """Every which layer attends to the full sequence: 1 for all, 0 for none."""
        beyond_all = self.layer_types is None and self.max_window_layers >= self.num_hidden_layers
        return 1 if not self.use_sliding_window or beyond_all else super().window_frequency

    def fields(self) -> dict[str, Any]:
        """Add the biases."""
        return super().fields() | {"qkv_bias": True}


class Qwen3(Qwen2):
    """Qwen 3: heads of 128 whatever the hidden size, a norm on each query and key head, biases if it says so."""

    head_dim: Dimension | None = 128
    attention_bias: Flag = False

    def fields(self) -> dict[str, Any]:
        """Add the norms, and replace the biases."""
        return super().fields() | biases(attention=self.attention_bias) | {"query_key_norm": True}


class Gemma(WindowedDecoder):
    """Gemma 1: heads of 256 whatever the hidden size, a tied head, no window."""

    full_every: ClassVar[int] = 1

    tie_word_embeddings: Flag = True
    head_dim: Dimension | None = 256
    attention_bias: Flag = False

    def fields(self) -> dict[str, Any]:
        """Add the biases."""
        return super().fields() | biases(attention=self.attention_bias)


class Gemma2(Gemma):
    """Gemma 2: norms on both sides of attention and MLP, a window in every other layer."""

    full_every: ClassVar[int] = 2

    num_key_value_heads: Dimension | None = 4
    sliding_window: Dimension | None = 4096

    def fields(self) -> dict[str, Any]:
        """Add the norms."""
        return super().fields() | {"norms_per_layer": 4}


class Gemma3(Gemma2):
    """Gemma 3's text model, whose files leave out the class's defaults; five windowed layers to a full one."""

    num_attention_heads: Dimension = 8
    vocab_size: Dimension = 262_208
    sliding_window_pattern: Count = 6

    @property
    def window_frequency(self) -> int:
        """Every which layer attends to the full sequence: 1 for all, 0 for none."""
        by_pattern = self.sliding_window is not None and self.layer_types is None
        return self.sliding_window_pattern if by_pattern else super().window_frequency

    def fields(self) -> dict[str, Any]:
        """Add the norms of queries and keys."""
        return super().fields() | {"query_key_norm": True}
