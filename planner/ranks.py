"""Which rank does what: Megatron's rank order, and the process groups that it implies.

Ranks count through the axes of an order, first axis fastest:

    tp-cp-dp-pp    rank = tensor + T x (context + C x (data + D x pipeline))
       of experts  rank = expert_tensor + T' x (expert + E x (expert_data + D' x pipeline))
    tp-cp-pp-dp    rank = tensor + T x (context + C x (pipeline + P x data))
       of experts  rank = expert_tensor + T' x (expert + E x (pipeline + P x expert_data))

Both orders number the same ranks; the experts' one cuts the T x C x D devices of a stage anew. Where data is outermost
that takes C = 1 and T' x E = T, so that both have the same stages; models without experts have no such axes there.
An axis of size n and stride s groups the ranks first, first + s, ..., first + (n-1) s, where (first // s) mod n = 0.
`data_context` is what ZeRO shards over: context and data are neighbours in the order, or context is 1, so it is an axis
too. Under the hybrid method, `ulysses` and `ring` are the two axes of context.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import Layout
from meshwright.costmodels.stages import ends_of_stage

MESH_ORDERS = {
    AxisOrder.PIPELINE_OUTERMOST: ("tensor", "context", "data", "pipeline"),
    AxisOrder.DATA_OUTERMOST: ("tensor", "context", "pipeline", "data"),
}
EXPERT_ORDERS = {
    AxisOrder.PIPELINE_OUTERMOST: ("expert_tensor", "expert", "expert_data", "pipeline"),
    AxisOrder.DATA_OUTERMOST: ("expert_tensor", "expert", "pipeline", "expert_data"),
}

Chunks = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of the mesh: groups of `size` ranks, `stride` apart."""

    size: int
    stride: int

    def coordinate(self, rank: int) -> int:
        """Give the position of a rank in its group."""
        return rank // self.stride % self.size

    def members(self, rank: int) -> tuple[int, ...]:
        """Give the ranks of a rank's group, ascending."""
        first = rank - self.coordinate(rank) * self.stride
        return tuple(first + position * self.stride for position in range(self.size))


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlan:
    """What a launcher tells one rank.

    coordinates: position on each axis. groups: ranks of its group on each axis, ascending, itself among them.
    chunks: for each model chunk the layers it holds, numbered from 0. embedding, head: whether it holds those too, or a
    share of them.
    """

    rank: int
    coordinates: Mapping[str, int]
    groups: Mapping[str, tuple[int, ...]]
    stage: int
    chunks: Chunks
    embedding: bool
    head: bool


def fits_data_outermost(layout: Layout, *, has_experts: bool) -> bool:
    """Say whether data can be outermost: no context ranks, and as many replicas of experts as of the rest."""
    expert_ranks = layout.expert_parallel * layout.expert_tensor_parallel
    return layout.context_parallel == 1 and (not has_experts or expert_ranks == layout.tensor_parallel)


def mesh_axes(layout: Layout) -> dict[str, Axis]:
    """Give the axes of a layout: those of its mesh order, of its expert order, data_context, and the hybrid's."""
    stage = layout.tensor_parallel * layout.context_parallel * layout.data_parallel
    expert = layout.expert_tensor_parallel * layout.expert_parallel
    sizes = {
        "tensor": layout.tensor_parallel,
        "context": layout.context_parallel,
        "data": layout.data_parallel,
        "pipeline": layout.pipeline_parallel,
        "expert_tensor": layout.expert_tensor_parallel,
        "expert": layout.expert_parallel,
        "expert_data": stage // expert,
    }
    axes = _strided(MESH_ORDERS[layout.axis_order], sizes)
    of_experts = _strided(EXPERT_ORDERS[layout.axis_order], sizes)
    if of_experts["pipeline"] == axes["pipeline"]:
        axes |= of_experts
    replicas = axes["data"] if layout.context_parallel == 1 else axes["context"]
    axes["data_context"] = Axis(size=layout.context_parallel * layout.data_parallel, stride=replicas.stride)
    if layout.ulysses_parallel > 1:
        inner = Axis(size=layout.ulysses_parallel, stride=axes["context"].stride)
        ring = layout.context_parallel // inner.size
        axes |= {"ulysses": inner, "ring": Axis(size=ring, stride=inner.stride * inner.size)}
    return axes


def rank_plan(layout: Layout, *, stages: Sequence[Chunks], rank: int) -> RankPlan:
    """Give one rank's part of a layout, of which the stages hold these layers (by stage, by chunk).

    Raises InputError where the layout has no such rank.
    """
    if isinstance(rank, bool) or not isinstance(rank, Integral) or not 0 <= rank < layout.world_size:
        raise InputError(
            f"rank {rank!r:.40} is not one of the plan's, which are the whole numbers from 0 to {layout.world_size - 1}"
        )
    rank = int(rank)  # of numpy, perhaps
    axes = mesh_axes(layout)
    stage = axes["pipeline"].coordinate(rank)
    embedding, head = ends_of_stage(layout, stage)
    return RankPlan(
        rank=rank,
        coordinates={name: axis.coordinate(rank) for name, axis in axes.items()},
        groups={name: axis.members(rank) for name, axis in axes.items()},
        stage=stage,
        chunks=stages[stage],
        embedding=embedding,
        head=head,
    )


def _strided(order: tuple[str, ...], sizes: Mapping[str, int]) -> dict[str, Axis]:
    axes, stride = {}, 1
    for name in order:
        axes[name] = Axis(size=sizes[name], stride=stride)
        stride *= sizes[name]
    return axes
