"""The schema of `catalog/models/*.yaml`: a decoder-only transformer, by the dimensions that decide its cost."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from meshwright.catalog.entry import Count, Entry, Name, Natural, Source, field_error
from meshwright.catalog.quantity import ParameterCount

# The bounds are far above any model, and far below what would exhaust memory when the layers are laid out.
LayerCount = Annotated[int, Field(ge=1, le=10_000, strict=True)]
LARGEST_DIMENSION = 10_000_000
Dimension = Annotated[int, Field(ge=1, le=LARGEST_DIMENSION, strict=True)]
GroupCount = Annotated[int, Field(ge=1, le=1_000, strict=True)]


class Norm(StrEnum):
    """Layer norm has a weight and a bias, RMS norm a weight."""

    LAYER_NORM = "layer_norm"
    RMS_NORM = "rms_norm"


class Positions(StrEnum):
    """Learned positions are a table of `max_positions` rows; rotary ones and ALiBi have no parameters."""

    LEARNED = "learned"
    ROTARY = "rotary"
    ALIBI = "alibi"


# What arXiv 2104.09864 takes, and software where nothing is said.
ROTARY_BASE = 10_000


class LatentAttentionEntry(Entry):
    """Multi-head latent attention (arXiv 2405.04434, section 2.1). A null query rank: queries aren't compressed."""

    query_rank: Dimension | None
    kv_rank: Dimension
    nope_head_dim: Dimension
    rope_head_dim: Dimension
    value_head_dim: Dimension


def _nothing(values: tuple[object, ...]) -> bool:
    return not values


def _usual(base: int) -> bool:
    return base == ROTARY_BASE


def _one(count: int) -> bool:
    return count == 1


def require_groups(experts: int, top_k: int, groups: int, drawn: int, *, names: tuple[str, str]) -> None:
    """Raise the error of a field that contradicts the rest: of groups of experts, or of those `drawn` for a token."""
    if experts % groups:
        raise field_error(names[0], f"{experts} experts can't be shared evenly by {groups} groups")
    if drawn > groups:
        raise field_error(names[1], f"{drawn} of {groups} groups can't be chosen")
    room = drawn * experts // groups
    if top_k > room:
        raise field_error(
            names[1], f"{drawn} of {groups} groups hold {room} experts, fewer than the {top_k} of a token"
        )


class PlacedLoad(Entry):
    """How loaded the busiest of `expert_parallel` ranks is over their mean, with experts placed by measured routing."""

    expert_parallel: Count
    load: Annotated[float, Field(ge=1, le=1e6, allow_inf_nan=False)]


class LinearAttentionEntry(Entry):
    """Linear attention (Lightning Attention-2, arXiv 2401.04658): queries meet a state of d x d_v a head, not keys.

    It has as many key as query heads, no window, a norm behind it, and decay in the place of rotation.

    frequency: every n-th layer attends with softmax and all others linearly; 0: none attends with softmax.
    block: tokens of a block, within which scores are computed as squares.
    gated: whether a gate of its own, hidden x heads d_v, weighs the output.
    """

    frequency: Natural
    block: Dimension
    gated: bool = False


class ExpertsEntry(Entry):
    """A mixture of experts in place of the MLP.

    dense_layers: leading layers that keep a dense MLP of the model's `ffn_hidden`.
    layer_frequency: of the layers after those, every n-th is a mixture.
    shared_ffn_hidden: width of the shared experts together, 0 for none.
    load_spread: standard deviation of the tokens that experts of a layer get, over their mean; 0 where routing is even,
    as benchmarks force it to be and balancing losses come near to.
    placed_loads: what measured routing gives in its place, for each degree of expert parallelism that divides experts.
    groups, groups_per_token: experts are as many equal runs, of which a token's are in so many ("node-limited routing",
    arXiv 2412.19437, section 2.1.2).
    """

    experts: Dimension
    top_k: Dimension
    ffn_hidden: Dimension
    shared_ffn_hidden: Annotated[int, Field(ge=0, le=LARGEST_DIMENSION, strict=True)] = 0
    shared_expert_gate: bool = False
    router_bias: bool = False
    dense_layers: Natural = 0
    layer_frequency: Count = 1
    load_spread: Annotated[float, Field(ge=0, le=10)] = 0.0
    placed_loads: Annotated[tuple[PlacedLoad, ...], Field(exclude_if=_nothing)] = ()
    groups: Annotated[GroupCount, Field(exclude_if=_one)] = 1
    groups_per_token: Annotated[GroupCount, Field(exclude_if=_one)] = 1

    @model_validator(mode="after")
    def _chosen_exist(self) -> Self:
        if self.top_k > self.experts:
            raise field_error("top_k", f"{self.top_k} of {self.experts} experts can't be chosen")
        names = ("groups", "groups_per_token")
        require_groups(self.experts, self.top_k, self.groups, self.groups_per_token, names=names)
        return self


class ModelEntry(Entry):
    """A model.

    window, chunk, window_frequency: where one of the first two is given, every `window_frequency`-th layer attends to
    the full sequence and the others to the last `window` tokens, or within chunks of `chunk` tokens that see nothing of
    one another (Llama 4); frequency 0 means that no layer attends to the full sequence.
    dropout: whether it is trained with dropout where the software has it on; null: unless its MLP is gated, as models
    of Llama's kind are trained without (arXiv 2302.13971, section 2.2).
    rotary_base: the wavelength of the slowest channels over that of the fastest (theta of arXiv 2104.09864, section
    3.2.2); it decides no cost, but what a launch of the plan trains.
    norms_per_layer: 2, or 4 where attention and MLP are normed on both sides (Gemma 2).
    """

    name: Name
    source: Source
    published_parameters: ParameterCount | None = None
    layers: LayerCount
    hidden: Dimension
    heads: Dimension
    kv_heads: Dimension
    head_dim: Dimension
    ffn_hidden: Dimension
    gated_mlp: bool
    vocab: Dimension
    tied_embeddings: bool
    norm: Norm = Norm.RMS_NORM
    norms_per_layer: Annotated[int, Field(ge=1, le=4)] = 2
    final_norm: bool = True
    embedding_norm: bool = False
    positions: Positions = Positions.ROTARY
    max_positions: Natural = 0
    rotary_base: Annotated[Count, Field(exclude_if=_usual)] = ROTARY_BASE
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    query_key_norm: bool = False
    window: Count | None = None
    chunk: Count | None = None
    window_frequency: Natural = 0
    latent_attention: LatentAttentionEntry | None = None
    linear_attention: LinearAttentionEntry | None = None
    dropout: bool | None = None
    experts: ExpertsEntry | None = None
    mtp_layers: Natural = 0

    @property
    def trains_with_dropout(self) -> bool:
        """Whether software that drops out by default does so for this model."""
        return not self.gated_mlp if self.dropout is None else self.dropout

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.heads % self.kv_heads:
            raise field_error("kv_heads", f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        if self.positions is Positions.LEARNED and not self.max_positions:
            raise field_error("max_positions", "learned positions need max_positions")
        if self.chunk is not None and self.window is not None:
            raise field_error(
                "chunk", "a layer can't attend both within chunks and within a window; give one of the two"
            )
        if self.linear_attention is not None and self.linear_attention.frequency == 1:
            raise field_error(
                "linear_attention.frequency",
                "every layer attends with softmax; leave linear_attention out, or give 0 where none does",
            )
        if self.experts is not None and self.experts.dense_layers >= self.layers:
            raise field_error(
                "experts.dense_layers",
                f"{self.experts.dense_layers} of {self.layers} layers leave no layer with experts",
            )
        return self
