"""A decoder-only transformer as a sequence of layers, each an attention and an MLP or a mixture of experts."""

from dataclasses import dataclass
from functools import cached_property

from meshwright.catalog.model_entry import ExpertsEntry, ModelEntry, Norm, Positions
from meshwright.catalog.residuals_entry import ModelKind


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Ranks and head widths of multi-head latent attention (arXiv 2405.04434, section 2.1)."""

    query_rank: int | None
    kv_rank: int
    nope_head_dim: int
    rope_head_dim: int
    value_head_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearAttention:
    """Linear attention by blocks (arXiv 2401.04658), with a norm behind it, and an output gate where `gated`."""

    block: int
    gated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Multi-head attention, grouped where kv_heads < heads; `window` limits how far back a token looks.

    chunk: length of the pieces of a sequence that see nothing of one another.

    head_dim is the width of a query or key head, value_head_dim that of a value head.

    linear: in the place of softmax; then kv_heads are the heads, and nothing limits how far back a token looks.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_head_dim: int
    window: int | None
    chunk: int | None
    latent: LatentAttention | None
    linear: LinearAttention | None
    qkv_bias: bool
    output_bias: bool
    query_key_norm: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp:
    """Two matrices of hidden x ffn_hidden, or three where gated."""

    ffn_hidden: int
    gated: bool
    bias: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture: a token goes to `top_k` of `experts` MLPs of `ffn_hidden`, and to `shared_ffn_hidden` in all.

    load: rows that an expert computes over its even share: its capacity factor where it is padded to it, the factor at
    most where tokens beyond it are dropped (arXiv 2101.03961, section 2.2).
    load_spread: standard deviation of the loads of experts over their mean, 0 where routing is even.
    placed_loads: the busiest rank's load over the mean by degree of expert parallelism, where routing was measured.
    groups, groups_per_token: a token's experts are in so many of as many equal runs of experts.
    consecutive: they are next to one another, dealt out in turn, as gates of benchmarks do.
    """

    experts: int
    top_k: int
    ffn_hidden: int
    shared_ffn_hidden: int
    shared_gate: bool
    router_bias: bool
    gated: bool
    load: float = 1.0
    load_spread: float = 0.0
    placed_loads: tuple[tuple[int, float], ...] = ()
    groups: int = 1
    groups_per_token: int = 1
    consecutive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One transformer layer."""

    attention: Attention
    mlp: Mlp | Experts
    norms: int


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """A model. `layers` is in order; equal layers are equal values, so that work is counted once a kind.

    mtp_layers: multi-token-prediction modules behind the last layer (arXiv 2412.19437, section 2.2), each like the
    last layer.
    """

    name: str
    hidden: int
    vocab: int
    tied_embeddings: bool
    norm: Norm
    final_norm: bool
    embedding_norm: bool
    positions: Positions
    max_positions: int
    rotary_base: int
    layers: tuple[Layer, ...]
    mtp_layers: int

    @cached_property
    def layer_kinds(self) -> tuple[Layer, ...]:
        """The distinct layers, in order of first appearance."""
        return tuple(dict.fromkeys(self.layers))

    @cached_property
    def kind_of_layer(self) -> tuple[int, ...]:
        """For each layer the index of its kind in `layer_kinds`."""
        index = {kind: position for position, kind in enumerate(self.layer_kinds)}
        return tuple(index[layer] for layer in self.layers)

    @property
    def has_experts(self) -> bool:
        """Whether any layer is a mixture of experts."""
        return any(isinstance(kind.mlp, Experts) for kind in self.layer_kinds)

    @property
    def kind(self) -> ModelKind:
        """Whether it is a mixture of experts, in any layer."""
        return ModelKind.MIXTURE if self.has_experts else ModelKind.DENSE


def transformer_of(entry: ModelEntry) -> Transformer:
    """Make the frozen model of a catalog entry."""
    return Transformer(
        name=entry.name,
        hidden=entry.hidden,
        vocab=entry.vocab,
        tied_embeddings=entry.tied_embeddings,
        norm=entry.norm,
        final_norm=entry.final_norm,
        embedding_norm=entry.embedding_norm,
        positions=entry.positions,
        max_positions=entry.max_positions,
        rotary_base=entry.rotary_base,
        layers=tuple(_layer(entry, index) for index in range(entry.layers)),
        mtp_layers=entry.mtp_layers,
    )


def _layer(entry: ModelEntry, index: int) -> Layer:
    return Layer(attention=_attention(entry, index), mlp=_mlp(entry, index), norms=entry.norms_per_layer)


def _attention(entry: ModelEntry, index: int) -> Attention:
    linear = entry.linear_attention
    if linear is not None and (linear.frequency == 0 or (index + 1) % linear.frequency > 0):
        return _linear_attention(entry, LinearAttention(block=linear.block, gated=linear.gated))
    latent = entry.latent_attention
    full = entry.window_frequency > 0 and (index + 1) % entry.window_frequency == 0
    return Attention(
        heads=entry.heads,
        kv_heads=entry.kv_heads,
        head_dim=latent.nope_head_dim + latent.rope_head_dim if latent else entry.head_dim,
        value_head_dim=latent.value_head_dim if latent else entry.head_dim,
        window=None if full else entry.window,
        chunk=None if full else entry.chunk,
        latent=LatentAttention(**latent.model_dump()) if latent else None,
        linear=None,
        qkv_bias=entry.qkv_bias,
        output_bias=entry.output_bias,
        query_key_norm=entry.query_key_norm,
    )


def _linear_attention(entry: ModelEntry, linear: LinearAttention) -> Attention:
    return Attention(
        heads=entry.heads,
        kv_heads=entry.heads,
        head_dim=entry.head_dim,
        value_head_dim=entry.head_dim,
        window=None,
        chunk=None,
        latent=None,
        linear=linear,
        qkv_bias=entry.qkv_bias,
        output_bias=entry.output_bias,
        query_key_norm=entry.query_key_norm,
    )


def _mlp(entry: ModelEntry, index: int) -> Mlp | Experts:
    experts = entry.experts
    if experts is None or not _has_experts(experts, index):
        return Mlp(ffn_hidden=entry.ffn_hidden, gated=entry.gated_mlp, bias=entry.mlp_bias)
    return Experts(
        experts=experts.experts,
        top_k=experts.top_k,
        ffn_hidden=experts.ffn_hidden,
        shared_ffn_hidden=experts.shared_ffn_hidden,
        shared_gate=experts.shared_expert_gate,
        router_bias=experts.router_bias,
        load_spread=experts.load_spread,
        placed_loads=tuple((placed.expert_parallel, placed.load) for placed in experts.placed_loads),
        groups=experts.groups,
        groups_per_token=experts.groups_per_token,
        gated=entry.gated_mlp,
    )


def _has_experts(experts: ExpertsEntry, index: int) -> bool:
    return index >= experts.dense_layers and (index - experts.dense_layers) % experts.layer_frequency == 0
