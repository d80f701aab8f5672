"""First values of parameters: each of them follows from its name alone, so that every layout starts from the same."""

import zlib

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from meshwright.planner.ledger.parameters import Parameter, chunk_units, rows_on_shard
from meshwright.planner.ledger.sharding import UnitSharding, sharding_of
from meshwright.planner.ledger.workload import Chunk, Workload
from meshwright.planner.ranks import RankPlan
from meshwright.runtime.model import ModelChunk
from meshwright.runtime.sharding import own_parameters

DEVIATION = 0.02


def set_first_values(module: ModelChunk, chunk: Chunk, workload: Workload, rank: RankPlan) -> None:
    """Fill a rank's part of each parameter of a chunk; no more than one whole parameter is held at once."""
    with torch.no_grad():
        for unit in chunk_units(workload.model, chunk):
            sharding = sharding_of(workload, unit, rank)
            for parameter, held in zip(unit.parameters, own_parameters(module, unit), strict=True):
                whole = _first_value(f"{unit.name}.{parameter.name}", parameter)
                part = _part(whole, parameter, workload, rank, sharding)
                (held.to_local() if isinstance(held, DTensor) else held).copy_(part)


def _first_value(name: str, parameter: Parameter) -> Tensor:
    if len(parameter.shape) == 1:
        return torch.ones(parameter.shape)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(parameter.shape, generator=generator) * DEVIATION


def _part(whole: Tensor, parameter: Parameter, workload: Workload, rank: RankPlan, sharding: UnitSharding) -> Tensor:
    shape = parameter.shape_on_rank(workload)
    axis, dim = ("expert", 0) if parameter.expert else ("tensor", parameter.tensor_dim)
    if dim is not None:
        whole = whole.narrow(dim, rank.coordinates[axis] * shape[dim], shape[dim])
    rows = rows_on_shard(shape[0], shards=sharding.shards, index=sharding.index)
    first = min(sharding.index * -(-shape[0] // sharding.shards), shape[0])
    return whole.narrow(0, first, rows)
