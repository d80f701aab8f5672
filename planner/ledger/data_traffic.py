"""What replicas exchange: one rank's collectives of parameters and gradients in a step, unit by unit.

    not sharded         gradients are summed once a step, in one bucket a unit
    ZeRO-1              parameters are gathered once a step, gradients scattered once
    ZeRO-2              gradients are scattered once a micro-batch
    ZeRO-3              parameters are gathered once a micro-batch for the forward pass, and again for the backward pass
    hybrid              what is scattered is summed over the copies once a step

In a pipeline, parameters and gradients are whole from the first to the last micro-batch of a step, so that ZeRO-2 and
ZeRO-3 exchange what ZeRO-1 does. The head is kept from its forward to its backward pass, which follows at once, and
the backward pass of the embedding needs no parameters. Shards are padded to the largest.
"""

import math
from collections.abc import Iterator

from meshwright.planner.ledger.parameters import EMBEDDING, HEAD, Unit, chunk_units, padded_shard_elements
from meshwright.planner.ledger.sharding import UnitSharding, sharding_of, shards_of
from meshwright.planner.ledger.transfers import Kind, Transfer
from meshwright.planner.ledger.workload import FLOAT_BYTES, Workload
from meshwright.planner.ranks import RankPlan

GRADIENTS_SHARDED, PARAMETERS_SHARDED = 2, 3


def data_traffic(workload: Workload, rank: RankPlan) -> Iterator[Transfer]:
    """Give what a rank exchanges with its replicas."""
    for chunk in workload.chunks(rank.stage):
        for unit in chunk_units(workload.model, chunk):
            sharding = sharding_of(workload, unit, rank)
            yield from _sharded(workload, unit, sharding) if sharding.shards > 1 else _whole(workload, unit, sharding)


def reductions(workload: Workload, *, expert: bool) -> int:
    """Give how many times a step sums a unit's gradients over replicas, or would if there were any."""
    layout = workload.layout
    sharded = shards_of(workload, expert=expert) > 1 and layout.zero_stage >= GRADIENTS_SHARDED
    each_time = sharded and layout.pipeline_parallel == 1 and layout.shards["gradient_shard"] > 1
    return workload.micro_batches if each_time else 1


def gathers(workload: Workload, unit: Unit) -> int:
    """Give how many times a step gathers a sharded unit's parameters."""
    layout = workload.layout
    held = layout.zero_stage < PARAMETERS_SHARDED or layout.shards["parameter_shard"] == 1
    if held or layout.pipeline_parallel > 1:
        return 1
    return workload.micro_batches * (1 if unit.name in (EMBEDDING, HEAD) else 2)


def _sharded(workload: Workload, unit: Unit, sharding: UnitSharding) -> Iterator[Transfer]:
    shards = sharding.shards
    shard = sum(padded_shard_elements(each.shape_on_rank(workload), shards=shards) for each in unit.parameters)
    gathered, reduced = gathers(workload, unit), reductions(workload, expert=unit.expert)
    yield Transfer(
        kind=Kind.ALL_GATHER,
        ranks=sharding.ranks,
        count=gathered,
        payload_bytes=gathered * shards * shard * workload.element_bytes,
    )
    yield Transfer(
        kind=Kind.REDUCE_SCATTER,
        ranks=sharding.ranks,
        count=reduced,
        payload_bytes=reduced * shards * shard * FLOAT_BYTES,
    )
    if len(sharding.copies) > 1:
        yield Transfer(kind=Kind.ALL_REDUCE, ranks=sharding.copies, count=1, payload_bytes=shard * FLOAT_BYTES)


def _whole(workload: Workload, unit: Unit, sharding: UnitSharding) -> Iterator[Transfer]:
    if len(sharding.replicas) > 1:
        elements = sum(math.prod(each.shape_on_rank(workload)) for each in unit.parameters)
        yield Transfer(kind=Kind.ALL_REDUCE, ranks=sharding.replicas, count=1, payload_bytes=elements * FLOAT_BYTES)
