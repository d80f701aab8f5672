"""What each rank of the reference launcher holds, and what it exchanges in a step."""

from dataclasses import dataclass

from meshwright.planner.ledger.activations import activation_bytes
from meshwright.planner.ledger.context_traffic import context_traffic
from meshwright.planner.ledger.data_traffic import data_traffic
from meshwright.planner.ledger.expert_traffic import expert_traffic
from meshwright.planner.ledger.parameters import chunk_units, elements_on_shard
from meshwright.planner.ledger.pipeline_traffic import pipeline_traffic
from meshwright.planner.ledger.sharding import sharding_of
from meshwright.planner.ledger.tensor_traffic import tensor_traffic
from meshwright.planner.ledger.transfers import Transfer
from meshwright.planner.ledger.workload import FLOAT_BYTES, Workload
from meshwright.planner.ranks import RankPlan

MOMENTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLedger:
    """One rank's part. Bytes are those between steps, parameters, gradients and both moments of Adam in fp32.

    gradient_bytes: of those that the optimizer is given. activation_bytes: the most that forward passes keep for
    backward passes at once, by PyTorch's kernels for processors. transfers: of one step, without what the first one
    sets up.
    """

    rank: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    transfers: tuple[Transfer, ...]


def ledger_of(workload: Workload) -> tuple[RankLedger, ...]:
    """Give each rank's part of a workload that has no obstacles."""
    return tuple(rank_ledger(workload, workload.rank(rank)) for rank in range(workload.layout.world_size))


def rank_ledger(workload: Workload, rank: RankPlan) -> RankLedger:
    """Give one rank's part."""
    parameter_bytes = FLOAT_BYTES * _elements(workload, rank)
    parts = (tensor_traffic, context_traffic, expert_traffic, data_traffic, pipeline_traffic)
    return RankLedger(
        rank=rank.rank,
        parameter_bytes=parameter_bytes,
        gradient_bytes=parameter_bytes,
        optimizer_bytes=MOMENTS * parameter_bytes,
        activation_bytes=activation_bytes(workload, rank),
        transfers=tuple(transfer for part in parts for transfer in part(workload, rank)),
    )


def _elements(workload: Workload, rank: RankPlan) -> int:
    count = 0
    for chunk in workload.chunks(rank.stage):
        for unit in chunk_units(workload.model, chunk):
            sharding = sharding_of(workload, unit, rank)
            for each in unit.parameters:
                shape = each.shape_on_rank(workload)
                count += elements_on_shard(shape, shards=sharding.shards, index=sharding.index)
    return count
