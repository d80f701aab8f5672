"""A rank's chunks of a workload: built without memory, split, sharded, and only then filled."""

from dataclasses import dataclass

import torch

from meshwright.catalog.context_method import ContextMethod
from meshwright.costmodels.layout import Recompute
from meshwright.costmodels.transformer import Experts
from meshwright.planner.ledger.routing import first_position, rows_by_expert
from meshwright.planner.ledger.workload import Chunk, Workload
from meshwright.planner.ranks import RankPlan
from meshwright.runtime.attention import Core, Rotation, WholeSequence
from meshwright.runtime.context import ExchangedHeads, GatheredKeys
from meshwright.runtime.initial import set_first_values
from meshwright.runtime.meshes import Meshes
from meshwright.runtime.mixture import Routes
from meshwright.runtime.model import Block, ModelChunk, recomputes_core
from meshwright.runtime.sharding import shard_chunk
from meshwright.runtime.tensor_parallel import apply_tensor_parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One chunk of a rank: what the plan says of it, and its module."""

    chunk: Chunk
    module: ModelChunk


def parallel_parts(workload: Workload, rank: RankPlan, meshes: Meshes | None) -> tuple[Part, ...]:
    """Build a rank's chunks without memory (on the meta device), split and sharded; whole ones where meshes is None."""
    with torch.device("meta"):
        parts = tuple(
            Part(chunk=chunk, module=_module(workload, rank, chunk, meshes)) for chunk in workload.chunks(rank.stage)
        )
    if meshes is not None:
        for part in parts:
            _parallelize(part, workload, meshes)
    return parts


def filled_parts(
    workload: Workload, rank: RankPlan, meshes: Meshes | None, *, device: torch.device
) -> tuple[Part, ...]:
    """Build a rank's chunks, give them memory on a device, and their parameters first values."""
    parts = parallel_parts(workload, rank, meshes)
    for part in parts:
        part.module.to_empty(device=device)
        set_first_values(part.module, part.chunk, workload, rank)
    return parts


def _module(workload: Workload, rank: RankPlan, chunk: Chunk, meshes: Meshes | None) -> ModelChunk:
    model = workload.model
    first = rank.coordinates["context"] * workload.local_sequence
    rotation = Rotation(base=model.rotary_base, first_position=first)
    blocks = {}
    for index, recompute in workload.layers_of(chunk):
        layer = model.layers[index]
        blocks[index] = Block(
            model.hidden,
            layer,
            core=_core(workload, recompute, meshes),
            routes=_routes(workload, layer.mlp, rank, meshes) if isinstance(layer.mlp, Experts) else None,
            rotation=rotation,
            recomputed=recompute is Recompute.FULL,
        )
    return ModelChunk(model, chunk, layers=blocks)


def _core(workload: Workload, recompute: Recompute, meshes: Meshes | None) -> Core:
    recomputed = recomputes_core(recompute)
    if meshes is None or workload.layout.context_parallel == 1:
        return WholeSequence(recomputed=recomputed)
    exchange = GatheredKeys if workload.layout.context_method is ContextMethod.ALL_GATHER else ExchangedHeads
    return exchange(meshes.group("context"), recomputed=recomputed)


def _routes(workload: Workload, experts: Experts, rank: RankPlan, meshes: Meshes | None) -> Routes:
    shared = workload.layout.expert_parallel > 1 and meshes is not None
    return Routes(
        first_position=first_position(workload, rank.rank),
        rows=tuple(rows_by_expert(workload, experts, member) for member in rank.groups["expert"]),
        own=rank.coordinates["expert"],
        group=meshes.experts["expert"].get_group() if shared and meshes is not None else None,
    )


def _parallelize(part: Part, workload: Workload, meshes: Meshes) -> None:
    layout = workload.layout
    if layout.tensor_parallel > 1:
        apply_tensor_parallel(part.module, meshes.dense["tensor"], cut_tokens=layout.sequence_parallel)
    shard_chunk(part.module, part.chunk, workload, meshes)
