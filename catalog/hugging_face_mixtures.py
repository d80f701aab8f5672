"""The families of Hugging Face `config.json` that are mixtures of experts; see hugging_face_families for the rest."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from pydantic import AliasChoices, Field, ValidationInfo, field_validator, model_validator

from meshwright.catalog.entry import Count
from meshwright.catalog.hugging_face_families import (
    Decoder,
    Flag,
    GroupedDecoder,
    Index,
    LayerType,
    Mistral,
    WindowedDecoder,
    biases,
    full_layer_frequency,
    require_width,
)
from meshwright.catalog.model_entry import Dimension, GroupCount, LayerCount, require_groups


class Mixtral(Mistral):
    """Mixtral: every layer is a mixture, whose experts have the MLP's width."""

    usual_rotary_base: ClassVar[int] = 1_000_000

    sliding_window: Dimension | None = None
    num_local_experts: Dimension
    num_experts_per_tok: Dimension

    @field_validator("num_experts_per_tok")
    @classmethod
    def _enough(cls, top_k: int, info: ValidationInfo) -> int:
        return _chosen(top_k, info.data.get("num_local_experts"))

    def fields(self) -> dict[str, Any]:
        """Add the mixture."""
        return super().fields() | {
            "experts": {
                "experts": self.num_local_experts,
                "top_k": self.num_experts_per_tok,
                "ffn_hidden": self.intermediate_size,
            }
        }


class MiniMax(GroupedDecoder):
    """MiniMax-Text-01 and M1: linear attention but in every n-th layer, and every layer a mixture.

    Which layers attend linearly `layer_types` says, else `attn_type_list` (0 where it does) of the model's own code.
    """

    usual_rotary_base: ClassVar[int] = 1_000_000

    num_key_value_heads: Dimension | None = 8
    num_local_experts: Dimension
    num_experts_per_tok: Dimension
    shared_intermediate_size: Index = 0
    block_size: Dimension = 256
    layer_types: list[LayerType] = Field(validation_alias=AliasChoices("layer_types", "attn_type_list"))

    @field_validator("num_experts_per_tok")
    @classmethod
    def _enough(cls, top_k: int, info: ValidationInfo) -> int:
        return _chosen(top_k, info.data.get("num_local_experts"))

    @field_validator("layer_types", mode="before")
    @classmethod
    def _by_name(cls, types: Any) -> Any:  # noqa: ANN401 - what a file holds
        if not isinstance(types, list):
            return types
        names = {0: LayerType.LINEAR, 1: LayerType.FULL}
        return [names.get(kind, kind) if type(kind) is int else kind for kind in types]

    @field_validator("layer_types")
    @classmethod
    def _regular(cls, types: list[LayerType], info: ValidationInfo) -> list[LayerType]:
        layers = info.data.get("num_hidden_layers")
        if layers is not None and len(types) != layers:
            raise ValueError(f"lists {len(types)} layers, but num_hidden_layers is {layers}")
        if not {LayerType.FULL, LayerType.LINEAR}.issuperset(types):
            raise ValueError("layers of this family attend to the full sequence or linearly")
        if full_layer_frequency(types) is None:
            raise ValueError("full attention must come at every n-th layer; other patterns can't be planned yet")
        return types

    def fields(self) -> dict[str, Any]:
        """Add linear attention, where some layer has it, and the mixture."""
        frequency = full_layer_frequency(self.layer_types) or 0
        linear = {"frequency": frequency, "block": self.block_size, "gated": True}
        return (
            super().fields()
            | ({} if frequency == 1 else {"linear_attention": linear})
            | {
                "experts": {
                    "experts": self.num_local_experts,
                    "top_k": self.num_experts_per_tok,
                    "ffn_hidden": self.intermediate_size,
                    "shared_ffn_hidden": self.shared_intermediate_size,
                }
            }
        )


class Qwen3Moe(WindowedDecoder):
    """Qwen 3's mixtures: as Qwen 3, except that the window is every layer's, and that heads have no fixed width.

    Every `decoder_sparse_step`-th layer is a mixture, except those that `mlp_only_layers` lists.
    """

    num_key_value_heads: Dimension | None = 4
    sliding_window: Dimension | None = 4096
    use_sliding_window: Flag = False
    attention_bias: Flag = False
    num_experts: Dimension = Field(validation_alias=AliasChoices("num_experts", "num_local_experts"))
    num_experts_per_tok: Dimension
    moe_intermediate_size: Dimension
    decoder_sparse_step: Count = 1
    mlp_only_layers: list[Index] | None = None

    @field_validator("num_experts_per_tok")
    @classmethod
    def _enough(cls, top_k: int, info: ValidationInfo) -> int:
        return _chosen(top_k, info.data.get("num_experts"))

    @field_validator("mlp_only_layers")
    @classmethod
    def _regular_mixtures(cls, dense: list[int] | None, info: ValidationInfo) -> list[int] | None:
        layers, step = info.data.get("num_hidden_layers", 0), info.data.get("decoder_sparse_step", 1)
        if _pattern(_mixtures(layers, step, dense or [])) is None:
            raise ValueError(
                "mixtures must come at every n-th layer after the leading dense ones; others can't be planned yet"
            )
        return dense

    @property
    def window_frequency(self) -> int:
        """Every which layer attends to the full sequence: 1 for all, 0 for none."""
        return super().window_frequency if self.use_sliding_window else 1

    def fields(self) -> dict[str, Any]:
        """Add the norms of queries and keys, the biases and the mixture."""
        mixtures = _mixtures(self.num_hidden_layers, self.decoder_sparse_step, self.mlp_only_layers or [])
        return (
            super().fields()
            | biases(attention=self.attention_bias)
            | {
                "query_key_norm": True,
                "experts": _experts(
                    mixtures,
                    experts=self.num_experts,
                    top_k=self.num_experts_per_tok,
                    ffn_hidden=self.moe_intermediate_size,
                ),
            }
        )


class Llama4(GroupedDecoder):
    """Llama 4's text model: attention within chunks but in every fourth layer, a shared expert beside the routed ones.

    Which layers are chunked `layer_types` says, else `no_rope_layers` (1 where it is), else `no_rope_layer_interval`.
    The width of dense layers is `intermediate_size_mlp`, that of experts `intermediate_size`. Its norm of queries and
    keys has no weights.
    """

    usual_rotary_base: ClassVar[int] = 500_000

    num_hidden_layers: LayerCount = 48
    hidden_size: Dimension = 5120
    num_attention_heads: Dimension = 40
    vocab_size: Dimension = 202_048
    intermediate_size: Dimension = 8192
    intermediate_size_mlp: Dimension = 16_384
    num_key_value_heads: Dimension | None = 8
    head_dim: Dimension | None = 128
    attention_bias: Flag = False
    num_local_experts: Index = 16
    num_experts_per_tok: Index = 1
    interleave_moe_layer_step: Index = 1
    moe_layers: list[Index] | None = None
    attention_chunk_size: Dimension | None = 8192
    no_rope_layer_interval: Count = 4
    no_rope_layers: list[Index] | None = None
    layer_types: list[LayerType] | None = None

    @field_validator("num_experts_per_tok")
    @classmethod
    def _enough(cls, top_k: int, info: ValidationInfo) -> int:
        return _chosen(top_k, info.data.get("num_local_experts"))

    @field_validator("moe_layers")
    @classmethod
    def _regular_mixtures(cls, listed: list[int] | None, info: ValidationInfo) -> list[int] | None:
        layers = info.data.get("num_hidden_layers", 0)
        if _pattern(_listed(layers, listed, info.data.get("interleave_moe_layer_step", 1))) is None:
            raise ValueError(
                "mixtures must come at every n-th layer after the leading dense ones; others can't be planned yet"
            )
        return listed

    @field_validator("no_rope_layers", "layer_types")
    @classmethod
    def _regular_chunks(cls, types: list[Any] | None, info: ValidationInfo) -> list[Any] | None:
        layers = info.data.get("num_hidden_layers")
        if not types or layers is None:
            return types
        if len(types) != layers:
            raise ValueError(f"lists {len(types)} layers, but num_hidden_layers is {layers}")
        if LayerType.SLIDING in types:
            raise ValueError("layers of this family attend within chunks, not within a window")
        if full_layer_frequency(_chunked(types)) is None:
            raise ValueError("full attention must come at every n-th layer; other patterns can't be planned yet")
        return types

    @property
    def full_frequency(self) -> int:
        """Every which layer attends to the full sequence: 1 for all, 0 for none."""
        listed = self.layer_types or self.no_rope_layers
        return (full_layer_frequency(_chunked(listed)) or 0) if listed else self.no_rope_layer_interval

    def fields(self) -> dict[str, Any]:
        """Add the chunks where some layer has them, the biases and the mixture."""
        mixtures = _listed(self.num_hidden_layers, self.moe_layers, self.interleave_moe_layer_step)
        chunked = self.attention_chunk_size is not None and self.full_frequency != 1
        return (
            super().fields()
            | biases(attention=self.attention_bias)
            | ({"chunk": self.attention_chunk_size, "window_frequency": self.full_frequency} if chunked else {})
            | {
                "ffn_hidden": self.intermediate_size_mlp,
                "experts": _experts(
                    mixtures,
                    experts=self.num_local_experts,
                    top_k=self.num_experts_per_tok,
                    ffn_hidden=self.intermediate_size,
                    shared_ffn_hidden=self.intermediate_size,
                ),
            }
        )


def _chunked(types: Sequence[LayerType | int]) -> list[LayerType]:
    """Give the kind of each layer, of its kind or of whether it has rotary positions: those that have are chunked."""
    named = {0: LayerType.FULL, 1: LayerType.CHUNKED}
    return [kind if isinstance(kind, LayerType) else named[min(kind, 1)] for kind in types]


def _listed(layers: int, listed: Sequence[int] | None, step: int) -> list[bool]:
    """Tell for each layer whether it is a mixture, by Llama 4's rule: those listed, else every step-th."""
    if listed is not None:
        return [layer in set(listed) for layer in range(layers)]
    return [step > 0 and (layer + 1) % step == 0 for layer in range(layers)]


class Deepseek(Decoder):
    """DeepSeek-V2, V3 and Kimi K2: latent attention, shared experts, leading dense layers.

    `head_dim` and `num_key_value_heads` of these files don't describe the latent attention, and aren't read. Of the
    layers from `first_k_dense_replace` on, those whose number is a multiple of `moe_layer_freq` are mixtures. Groups of
    experts limit nothing where `topk_method` is the greedy one of V2-Lite.
    """

    intermediate_size: Dimension
    attention_bias: Flag = False
    q_lora_rank: Dimension | None
    kv_lora_rank: Dimension
    qk_nope_head_dim: Dimension
    qk_rope_head_dim: Dimension
    v_head_dim: Dimension
    n_routed_experts: Dimension
    num_experts_per_tok: Dimension
    moe_intermediate_size: Dimension
    n_shared_experts: Index | None
    first_k_dense_replace: Index
    moe_layer_freq: Count = 1
    num_nextn_predict_layers: Index = 0
    topk_method: str | None = None
    n_group: GroupCount | None = None
    topk_group: GroupCount | None = None

    @field_validator("num_experts_per_tok")
    @classmethod
    def _enough(cls, top_k: int, info: ValidationInfo) -> int:
        return _chosen(top_k, info.data.get("n_routed_experts"))

    @model_validator(mode="after")
    def _groups_hold_them(self) -> Self:
        names = ("n_group", "topk_group")
        require_groups(self.n_routed_experts, self.num_experts_per_tok, *self._groups, names=names)
        return self

    @field_validator("n_shared_experts")
    @classmethod
    def _shared_width(cls, shared: int | None, info: ValidationInfo) -> int | None:
        require_width((shared or 0) * info.data.get("moe_intermediate_size", 0), of="the shared experts")
        return shared

    @field_validator("qk_rope_head_dim")
    @classmethod
    def _head_width(cls, rotary: int, info: ValidationInfo) -> int:
        require_width(rotary + info.data.get("qk_nope_head_dim", 0), of="a head")
        return rotary

    @property
    def _groups(self) -> tuple[int, int]:
        """Groups of experts, and those of a token."""
        if self.topk_method == "greedy":
            return 1, 1
        return self.n_group or 1, self.topk_group or self.n_group or 1

    def fields(self) -> dict[str, Any]:
        """Add the latent attention, the mixture and the multi-token-prediction modules."""
        layers = range(self.num_hidden_layers)
        mixtures = [layer >= self.first_k_dense_replace and layer % self.moe_layer_freq == 0 for layer in layers]
        groups, groups_per_token = self._groups
        return (
            super().fields()
            | biases(attention=self.attention_bias)
            | {
                "head_dim": self.qk_nope_head_dim + self.qk_rope_head_dim,
                "ffn_hidden": self.intermediate_size,
                "gated_mlp": True,
                "latent_attention": {
                    "query_rank": self.q_lora_rank,
                    "kv_rank": self.kv_lora_rank,
                    "nope_head_dim": self.qk_nope_head_dim,
                    "rope_head_dim": self.qk_rope_head_dim,
                    "value_head_dim": self.v_head_dim,
                },
                "experts": _experts(
                    mixtures,
                    experts=self.n_routed_experts,
                    top_k=self.num_experts_per_tok,
                    ffn_hidden=self.moe_intermediate_size,
                    shared_ffn_hidden=(self.n_shared_experts or 0) * self.moe_intermediate_size,
                    groups=groups,
                    groups_per_token=groups_per_token,
                ),
                "mtp_layers": self.num_nextn_predict_layers,
            }
        )


def _chosen(top_k: int, experts: int | None) -> int:
    if experts is not None and top_k > experts:
        raise ValueError(f"{top_k} of {experts} experts can't be chosen")
    return top_k


def _mixtures(layers: int, step: int, dense: Sequence[int]) -> list[bool]:
    """Tell for each layer whether it is a mixture, by Qwen's rule."""
    return [layer not in set(dense) and (layer + 1) % step == 0 for layer in range(layers)]


def _pattern(mixtures: Sequence[bool]) -> tuple[int, int] | None:
    """Give the number of leading dense layers, and every which layer from there on is a mixture; None if irregular."""
    indices = [layer for layer, mixture in enumerate(mixtures) if mixture]
    if not indices:
        return len(mixtures), 1
    first, frequency = indices[0], indices[1] - indices[0] if len(indices) > 1 else len(mixtures)
    return (first, frequency) if indices == list(range(first, len(mixtures), frequency)) else None


def _experts(mixtures: Sequence[bool], **fields: int) -> dict[str, int] | None:
    """Give the fields of the mixture, None where no layer is one."""
    pattern = _pattern(mixtures)
    if pattern is None or not any(mixtures):
        return None
    dense_layers, layer_frequency = pattern
    return fields | {"dense_layers": dense_layers, "layer_frequency": layer_frequency}
