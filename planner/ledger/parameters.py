"""The parameters of the launcher's model, by the units that are sharded and gathered together.

With hidden size h, heads of d channels, an MLP of width f, E experts and V words, each matrix as PyTorch keeps it,
[outputs, inputs]:

    embedding                 [V, h]                                    tensor parallelism splits dimension 0
    attention_norm, mlp_norm  [h]                                       whole
    query, key, value         [heads d, h], [kv_heads d, h] twice       dimension 0
    output                    [h, heads d]                              dimension 1
    gate, up; down            [f, h] twice; [h, f]                      dimension 0; 1
    router                    [E, h]                                    whole
    experts                   [E, f, h] twice; [E, h, f]                expert parallelism splits dimension 0
    norm, head                [h], [V, h]                               whole, dimension 0

A unit is what FSDP gathers at once: the embedding, each layer without its experts, those experts, norm and head.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from meshwright.costmodels.transformer import Experts, Layer, Transformer
from meshwright.planner.ledger.workload import Chunk, Workload

EMBEDDING, HEAD = "embedding", "head"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter: its name in its unit, its whole shape, and which dimension tensor parallelism splits, if any.

    expert: one of routed experts, of which expert parallelism splits dimension 0.
    """

    name: str
    shape: tuple[int, ...]
    tensor_dim: int | None = None
    expert: bool = False

    def shape_on_rank(self, workload: Workload) -> tuple[int, ...]:
        """Give the shape on a rank, before any sharding over replicas."""
        shape = list(self.shape)
        if self.expert:
            shape[0] //= workload.layout.expert_parallel
        elif self.tensor_dim is not None:
            shape[self.tensor_dim] //= workload.layout.tensor_parallel
        return tuple(shape)

    @property
    def whole_on_tensor_ranks(self) -> bool:
        """Whether each tensor rank holds all of it."""
        return self.tensor_dim is None and not self.expert


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Parameters that are gathered together; `name` is that of their module in its chunk."""

    name: str
    parameters: tuple[Parameter, ...]

    @property
    def expert(self) -> bool:
        """Whether they are those of routed experts."""
        return self.parameters[0].expert


def chunk_units(model: Transformer, chunk: Chunk) -> Iterator[Unit]:
    """Give the units of one chunk, in the order of a forward pass; experts go before the layer that they are in."""
    if chunk.first:
        weight = Parameter(name="weight", shape=(model.vocab, model.hidden), tensor_dim=0)
        yield Unit(name=EMBEDDING, parameters=(weight,))
    for index in chunk.layers:
        yield from _layer_units(f"layers.{index}", model, model.layers[index])
    if chunk.last:
        yield Unit(
            name=HEAD,
            parameters=(
                Parameter(name="norm.weight", shape=(model.hidden,)),
                Parameter(name="output.weight", shape=(model.vocab, model.hidden), tensor_dim=0),
            ),
        )


def rows_on_shard(rows: int, *, shards: int, index: int) -> int:
    """Give how many of so many rows shard `index` holds: equal ones, rounded up, until there are none left."""
    each = math.ceil(rows / shards)
    return min(max(rows - index * each, 0), each)


def elements_on_shard(shape: tuple[int, ...], *, shards: int, index: int) -> int:
    """Give how many elements of a tensor of this shape a shard of its dimension 0 holds."""
    return rows_on_shard(shape[0], shards=shards, index=index) * math.prod(shape[1:])


def padded_shard_elements(shape: tuple[int, ...], *, shards: int) -> int:
    """Give the elements of the largest shard, to which FSDP pads all before they are gathered or scattered."""
    return elements_on_shard(shape, shards=shards, index=0)


def _layer_units(name: str, model: Transformer, layer: Layer) -> Iterator[Unit]:
    dense = [*_norms(model.hidden), *_attention(model.hidden, layer)]
    if isinstance(layer.mlp, Experts):
        yield Unit(name=f"{name}.mlp.experts", parameters=tuple(_experts(model.hidden, layer.mlp)))
        dense.append(Parameter(name="mlp.router.weight", shape=(layer.mlp.experts, model.hidden)))
        if layer.mlp.shared_ffn_hidden:
            dense += _mlp("mlp.shared", model.hidden, layer.mlp.shared_ffn_hidden)
    else:
        dense += _mlp("mlp", model.hidden, layer.mlp.ffn_hidden)
    yield Unit(name=name, parameters=tuple(dense))


def _norms(hidden: int) -> Iterator[Parameter]:
    for name in ("attention_norm.weight", "mlp_norm.weight"):
        yield Parameter(name=name, shape=(hidden,))


def _attention(hidden: int, layer: Layer) -> Iterator[Parameter]:
    attention = layer.attention
    width, kv_width = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
    for name, columns in (("query", width), ("key", kv_width), ("value", kv_width)):
        yield Parameter(name=f"attention.{name}.weight", shape=(columns, hidden), tensor_dim=0)
    yield Parameter(name="attention.output.weight", shape=(hidden, width), tensor_dim=1)


def _mlp(name: str, hidden: int, width: int) -> list[Parameter]:
    return [
        Parameter(name=f"{name}.gate.weight", shape=(width, hidden), tensor_dim=0),
        Parameter(name=f"{name}.up.weight", shape=(width, hidden), tensor_dim=0),
        Parameter(name=f"{name}.down.weight", shape=(hidden, width), tensor_dim=1),
    ]


def _experts(hidden: int, experts: Experts) -> Iterator[Parameter]:
    width = experts.ffn_hidden
    for name, rows, columns in (("gate", width, hidden), ("up", width, hidden), ("down", hidden, width)):
        yield Parameter(name=name, shape=(experts.experts, rows, columns), expert=True)
