"""What launchers don't run of layouts that their stacks can express: rules (layout/rules.py) over several columns.

They are those of planner/emission/*/obstacles.py, so that what is planned for a target can be emitted for it.
"""

import numpy as np

from meshwright.catalog.precision import Precision
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import BoolArray
from meshwright.planner.layout.partitions import shard_columns
from meshwright.planner.layout.rules import Columns, Rule


def _key_heads_for_all(job: Job, columns: Columns) -> BoolArray:
    kept = np.ones(len(columns["tensor_parallel"]), dtype=bool)
    for kind in job.model.layer_kinds:
        kept &= kind.attention.kv_heads % columns["tensor_parallel"] == 0
    return kept


def _experts_cut_alike(job: Job, columns: Columns) -> BoolArray:
    alike = columns["expert_tensor_parallel"] == columns["tensor_parallel"]
    return alike if job.model.has_experts else np.ones(len(alike), dtype=bool)


def _chunks_keep_gradients(_: Job, columns: Columns) -> BoolArray:
    return np.asarray((columns["zero_stage"] < 2) | (columns["virtual_pipeline"] == 1))


def _fp16_keeps_gradients(job: Job, columns: Columns) -> BoolArray:
    return np.asarray((columns["zero_stage"] < 2) | (job.precision is not Precision.FP16))


def _chunks_are_equal(job: Job, columns: Columns) -> BoolArray:
    chunks = columns["pipeline_parallel"] * columns["virtual_pipeline"]
    return np.asarray((columns["virtual_pipeline"] == 1) | (len(job.model.layers) % chunks == 0))


def _context_is_sharded(_: Job, columns: Columns) -> BoolArray:
    return np.asarray((columns["zero_stage"] > 0) | (columns["context_parallel"] == 1))


def _shards_of_whole_contexts(job: Job, columns: Columns) -> BoolArray:
    shard = shard_columns(job.cluster, columns, columns["partition"])["zero_shard"]
    return np.asarray((columns["zero_stage"] == 0) | (shard % columns["context_parallel"] == 0))


def _experts_of_shards(job: Job, columns: Columns) -> BoolArray:
    shard = shard_columns(job.cluster, columns, columns["partition"])["zero_shard"]
    ranks = np.where(columns["zero_stage"] > 0, shard, columns["context_parallel"]) * columns["tensor_parallel"]
    return np.asarray(ranks % columns["expert_parallel"] == 0)


# By the column that is the last one to be known.
MEGATRON = {
    "partition": (Rule(reason="the launcher doesn't shard gradients in fp16", keeps=_fp16_keeps_gradients),),
    "virtual_pipeline": (
        Rule(reason="the launcher doesn't shard gradients of interleaved stages", keeps=_chunks_keep_gradients),
    ),
}
MINDSPEED = {
    **MEGATRON,
    "virtual_pipeline": (
        *MEGATRON["virtual_pipeline"],
        Rule(reason="the launcher interleaves equal chunks alone", keeps=_chunks_are_equal),
    ),
}
TORCHTITAN = {
    "partition": (
        Rule(reason="the launcher always shards over the context ranks", keeps=_context_is_sharded),
        Rule(reason="the launcher shards over whole groups of context ranks", keeps=_shards_of_whole_contexts),
        Rule(reason="the launcher spreads experts over ranks that share shards", keeps=_experts_of_shards),
    )
}
DEEPSPEED = {
    "tensor_parallel": (Rule(reason="the launcher doesn't repeat key heads", keeps=_key_heads_for_all),),
    "expert_tensor_parallel": (
        Rule(reason="the launcher cuts experts as the other matrices", keeps=_experts_cut_alike),
    ),
}
