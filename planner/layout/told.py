"""What the columns of a space say of the fields of a layout that limits may be on.

A shard is of what the ZeRO stage shards: of states that are held whole it is 1. Recomputed layers are those of the
largest chunk that are computed again whole: none but under full recomputation, which is of all where no number is said.
"""

from collections.abc import Mapping

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import IntArray
from meshwright.costmodels.recompute import FULL
from meshwright.planner.layout.context import hybrid_ulysses
from meshwright.planner.layout.limited_fields import RECOMPUTED, SHARDS, SPLIT
from meshwright.planner.layout.partitions import shard_columns
from meshwright.planner.layout.rules import Columns

# The ZeRO stage from which on each shard is one.
SHARDED_FROM = dict(zip(SHARDS, (1, 2, 3, 3), strict=True))
# The fields that are known once a column is, beside its own.
KNOWN_WITH: Mapping[str, tuple[str, ...]] = {
    "pipeline_parallel": (SPLIT,),
    "context_method": ("ulysses_parallel",),
    "partition": SHARDS,
    "virtual_pipeline": (SPLIT,),
}


def told(job: Job, columns: Columns, field: str) -> IntArray:
    """Give what some columns of a space say of a field other than the split, shape [rows]."""
    if field in SHARDS:
        return sharded_over(shard_columns(job.cluster, columns, columns["partition"]), columns["zero_stage"], field)
    if field == "ulysses_parallel":
        return hybrid_ulysses(job, columns)
    return columns[field]


def sharded_over(shards: Columns, zero_stage: IntArray, field: str) -> IntArray:
    """Give over how many devices what the ZeRO stage shards is, [rows]."""
    return np.where(zero_stage >= SHARDED_FROM[field], shards[field], 1)


def recomputed_layers(columns: Columns, largest_chunk: IntArray) -> IntArray:
    """Give how many layers of the largest chunk are computed again whole, [rows]."""
    said = columns[RECOMPUTED]
    return np.where(columns["recompute"] == FULL, np.where(said == 0, largest_chunk, said), 0)
