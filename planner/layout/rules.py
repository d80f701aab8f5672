"""What makes a layout legal: named rules over columns of degrees, each with the reason it gives for a rejection.

A rule takes the job and some columns (arrays of shape [layouts]) and gives a mask of shape [layouts]: true where it is kept.
The rules are those of Megatron-Core's argument checks, read as arithmetic.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import SCHEDULES, BoolArray, IntArray, Schedule
from meshwright.costmodels.transformer import Experts

Columns = Mapping[str, IntArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; `reason` completes "rejected because ..."."""

    reason: str
    keeps: Callable[[Job, Columns], BoolArray]


def _all_divisible(widths: set[int], by: IntArray) -> BoolArray:
    return np.array([width % by == 0 for width in sorted(widths)], dtype=bool).reshape(-1, len(by)).all(axis=0)


def _batch_divides(job: Job, columns: Columns) -> BoolArray:
    return job.global_batch % columns["data_parallel"] == 0


def _heads_divide(job: Job, columns: Columns) -> BoolArray:
    return _all_divisible({kind.attention.heads for kind in job.model.layer_kinds}, columns["tensor_parallel"])


def _kv_heads_divide(job: Job, columns: Columns) -> BoolArray:
    tensor = columns["tensor_parallel"]
    kept = np.ones(len(tensor), dtype=bool)
    for kv_heads in {kind.attention.kv_heads for kind in job.model.layer_kinds}:
        kept &= (kv_heads % tensor == 0) | (tensor % kv_heads == 0)
    return kept


def _dense_width_divides(job: Job, columns: Columns) -> BoolArray:
    widths = {
        kind.mlp.shared_ffn_hidden if isinstance(kind.mlp, Experts) else kind.mlp.ffn_hidden
        for kind in job.model.layer_kinds
    }
    return _all_divisible(widths, columns["tensor_parallel"])


def _sequence_splits_in_ring(job: Job, columns: Columns) -> BoolArray:
    context = columns["context_parallel"]
    return (context == 1) | (job.sequence_length % (2 * context) == 0)


def _stages_have_layers(job: Job, columns: Columns) -> BoolArray:
    return columns["pipeline_parallel"] <= len(job.model.layers)


def _experts_have_sequence_parallel(job: Job, columns: Columns) -> BoolArray:
    return (columns["sequence_parallel"] == 1) | (columns["tensor_parallel"] == 1) | (not job.model.has_experts)


def _sequence_splits_over_tensor(job: Job, columns: Columns) -> BoolArray:
    parts = columns["tensor_parallel"] * columns["context_parallel"]
    return (columns["sequence_parallel"] == 0) | (job.sequence_length % parts == 0)


def _chunks_have_layers(job: Job, columns: Columns) -> BoolArray:
    return columns["pipeline_parallel"] * columns["virtual_pipeline"] <= len(job.model.layers)


def _expert_width_divides(job: Job, columns: Columns) -> BoolArray:
    widths = {kind.mlp.ffn_hidden for kind in job.model.layer_kinds if isinstance(kind.mlp, Experts)}
    return _all_divisible(widths, columns["expert_tensor_parallel"])


def _expert_mesh_fits(job: Job, columns: Columns) -> BoolArray:  # noqa: ARG001 - the signature of a rule
    stage = columns["tensor_parallel"] * columns["context_parallel"] * columns["data_parallel"]
    return stage % (columns["expert_parallel"] * columns["expert_tensor_parallel"]) == 0


def _replica_batch_divides(job: Job, columns: Columns) -> BoolArray:
    return job.global_batch // columns["data_parallel"] % columns["micro_batch"] == 0


def _interleaving_fills(job: Job, columns: Columns) -> BoolArray:
    micro_batches = job.global_batch // (columns["data_parallel"] * columns["micro_batch"])
    interleaved = columns["schedule"] == SCHEDULES.index(Schedule.INTERLEAVED)
    return ~interleaved | (micro_batches % columns["pipeline_parallel"] == 0)


MESH_RULES = (
    Rule(reason="data parallelism does not divide the global batch", keeps=_batch_divides),
    Rule(reason="tensor parallelism does not divide the attention heads", keeps=_heads_divide),
    Rule(reason="tensor parallelism and the key-value heads do not divide one another", keeps=_kv_heads_divide),
    Rule(reason="tensor parallelism does not divide the width of the MLP", keeps=_dense_width_divides),
    Rule(
        reason="the sequence does not split into 2 x context parallelism equal parts", keeps=_sequence_splits_in_ring
    ),
    Rule(reason="there are more pipeline stages than layers", keeps=_stages_have_layers),
)
SEQUENCE_RULES = (
    Rule(
        reason="experts under tensor parallelism need sequence parallelism",
        keeps=_experts_have_sequence_parallel,
    ),
    Rule(
        reason="the sequence does not split over tensor x context parallelism", keeps=_sequence_splits_over_tensor
    ),
)
PIPELINE_RULES = (Rule(reason="there are more pipeline chunks than layers", keeps=_chunks_have_layers),)
EXPERT_RULES = (
    Rule(reason="expert-tensor parallelism does not divide the width of an expert", keeps=_expert_width_divides),
    Rule(
        reason="expert x expert-tensor parallelism does not divide the devices of a stage", keeps=_expert_mesh_fits
    ),
)
BATCH_RULES = (
    Rule(reason="the micro-batch does not divide the batch of a replica", keeps=_replica_batch_divides),
    Rule(
        reason="interleaving needs micro-batches in multiples of the pipeline stages", keeps=_interleaving_fills
    ),
)
RULES = (*MESH_RULES, *SEQUENCE_RULES, *PIPELINE_RULES, *EXPERT_RULES, *BATCH_RULES)
