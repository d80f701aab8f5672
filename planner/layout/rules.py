"""What makes a layout legal: named rules over columns of degrees, each with the reason it gives for a rejection.

A rule takes the job and some columns (arrays of shape [layouts]) and gives a mask of the same shape: true where it is
kept. The rules are what the training software has, and Megatron-Core's argument checks, read as arithmetic.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import Axis, RecomputeBy
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import SCHEDULES, BoolArray, IntArray
from meshwright.costmodels.schedule import codes
from meshwright.costmodels.transformer import Experts

Columns = Mapping[str, IntArray]
# The schedules into which arXiv 2411.05288, section 5, puts the passes of a shared vocabulary.
SHARING = (codes.ONE_F_ONE_B, codes.V_HALF)
ZERO_BUBBLE = [code for code in codes.SPLIT_BACKWARD if code not in codes.DUAL]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; `reason` completes "rejected because ..."."""

    reason: str
    keeps: Callable[[Job, Columns], BoolArray]


def _divides(divisor: IntArray, number: int | IntArray) -> BoolArray:
    return np.asarray(number % divisor == 0)


def _divides_all(divisor: IntArray, numbers: set[int]) -> BoolArray:
    kept = np.ones(len(divisor), dtype=bool)
    for number in numbers:
        kept &= _divides(divisor, number)
    return kept


def _batch_divides(job: Job, columns: Columns) -> BoolArray:
    return _divides(columns["data_parallel"], job.global_batch)


def _heads_divide(job: Job, columns: Columns) -> BoolArray:
    return _divides_all(columns["tensor_parallel"], {kind.attention.heads for kind in job.model.layer_kinds})


def _kv_heads_divide(job: Job, columns: Columns) -> BoolArray:
    tensor = columns["tensor_parallel"]
    kept = np.ones(len(tensor), dtype=bool)
    for kv_heads in {kind.attention.kv_heads for kind in job.model.layer_kinds}:
        kept &= _divides(tensor, kv_heads) | (tensor % kv_heads == 0)
    return kept


def _dense_width_divides(job: Job, columns: Columns) -> BoolArray:
    widths = {
        kind.mlp.shared_ffn_hidden if isinstance(kind.mlp, Experts) else kind.mlp.ffn_hidden
        for kind in job.model.layer_kinds
    }
    return _divides_all(columns["tensor_parallel"], widths)


def _sequence_splits_in_ring(job: Job, columns: Columns) -> BoolArray:
    context = columns["context_parallel"]
    return np.asarray((context == 1) | _divides(2 * context, job.sequence_length))


def _stages_have_layers(job: Job, columns: Columns) -> BoolArray:
    return np.asarray(columns["pipeline_parallel"] <= len(job.model.layers))


def _experts_have_sequence_parallel(job: Job, columns: Columns) -> BoolArray:
    if not job.model.has_experts:
        return np.ones(len(columns["tensor_parallel"]), dtype=bool)
    return np.asarray((columns["sequence_parallel"] == 1) | (columns["tensor_parallel"] == 1))


def _sequence_splits_over_tensor(job: Job, columns: Columns) -> BoolArray:
    parts = columns["tensor_parallel"] * columns["context_parallel"]
    return np.asarray((columns["sequence_parallel"] == 0) | _divides(parts, job.sequence_length))


def _chunks_have_layers(job: Job, columns: Columns) -> BoolArray:
    chunks = columns["pipeline_parallel"] * columns["virtual_pipeline"]
    return np.asarray(chunks <= len(job.model.layers))


def _expert_width_divides(job: Job, columns: Columns) -> BoolArray:
    widths = {kind.mlp.ffn_hidden for kind in job.model.layer_kinds if isinstance(kind.mlp, Experts)}
    return _divides_all(columns["expert_tensor_parallel"], widths)


def _expert_mesh_fits(job: Job, columns: Columns) -> BoolArray:  # noqa: ARG001 - the signature of a rule
    stage = columns["tensor_parallel"] * columns["context_parallel"] * columns["data_parallel"]
    return _divides(columns["expert_parallel"] * columns["expert_tensor_parallel"], stage)


def _replica_batch_divides(job: Job, columns: Columns) -> BoolArray:
    return _divides(columns["micro_batch"], job.global_batch // columns["data_parallel"])


def _interleaving_fills(job: Job, columns: Columns) -> BoolArray:
    micro_batches = job.global_batch // (columns["data_parallel"] * columns["micro_batch"])
    plain = columns["schedule"] != SCHEDULES.index(Schedule.INTERLEAVED)
    return np.asarray(plain | _divides(columns["pipeline_parallel"], micro_batches))


def _zero_bubble_fills(job: Job, columns: Columns) -> BoolArray:
    micro_batches = job.global_batch // (columns["data_parallel"] * columns["micro_batch"])
    other = ~np.isin(columns["schedule"], ZERO_BUBBLE)
    return np.asarray(other | (micro_batches >= columns["pipeline_parallel"]))


def _mirror_is_even(job: Job, columns: Columns) -> BoolArray:  # noqa: ARG001 - the signature of a rule
    other = columns["schedule"] != codes.DUAL_PIPE
    return np.asarray(other | (columns["pipeline_parallel"] % 2 == 0))


def _streams_fill(job: Job, columns: Columns) -> BoolArray:
    micro_batches = job.global_batch // (columns["data_parallel"] * columns["micro_batch"])
    enough = micro_batches >= 2 * columns["pipeline_parallel"]
    halves = (micro_batches % 2 == 0) | (columns["schedule"] != codes.DUAL_PIPE)
    return np.asarray(~np.isin(columns["schedule"], codes.DUAL) | (enough & halves))


def _stack_has(column: str, axis: Axis) -> Rule:
    def keeps(job: Job, columns: Columns) -> BoolArray:
        off = 0 if column == "sequence_parallel" else 1
        return np.asarray((columns[column] == off) | (axis in job.stack.axes))

    return Rule(reason=f"the training software has no {axis} parallelism", keeps=keeps)


def _stack_runs(job: Job, columns: Columns) -> BoolArray:
    known = [SCHEDULES.index(schedule) for schedule in job.stack.schedules]
    return np.asarray((columns["pipeline_parallel"] == 1) | np.isin(columns["schedule"], known))


def _stack_shares_vocabulary(job: Job, columns: Columns) -> BoolArray:
    return np.asarray((columns["vocabulary_parallel"] == 0) | job.stack.vocabulary_parallel)


def _schedule_shares_vocabulary(job: Job, columns: Columns) -> BoolArray:  # noqa: ARG001 - the signature of a rule
    return np.asarray((columns["vocabulary_parallel"] == 0) | np.isin(columns["schedule"], SHARING))


def _stack_counts_recomputed(job: Job, columns: Columns) -> BoolArray:
    return np.asarray((columns["recompute_layers"] == 0) | (job.stack.recompute_by is not RecomputeBy.ALL))


def _chunks_have_several(job: Job, columns: Columns) -> BoolArray:
    chunks = columns["pipeline_parallel"] * columns["virtual_pipeline"]
    return np.asarray((columns["recompute_layers"] == 0) | (chunks < len(job.model.layers)))


MESH_RULES = (
    _stack_has("tensor_parallel", Axis.TENSOR),
    _stack_has("context_parallel", Axis.CONTEXT),
    _stack_has("pipeline_parallel", Axis.PIPELINE),
    Rule(reason="data parallelism does not divide the global batch", keeps=_batch_divides),
    Rule(reason="tensor parallelism does not divide the attention heads", keeps=_heads_divide),
    Rule(reason="tensor parallelism and the key-value heads do not divide one another", keeps=_kv_heads_divide),
    Rule(reason="tensor parallelism does not divide the width of the MLP", keeps=_dense_width_divides),
    Rule(reason="the sequence does not split into 2 x context parallelism equal parts", keeps=_sequence_splits_in_ring),
    Rule(reason="there are more pipeline stages than layers", keeps=_stages_have_layers),
)
SEQUENCE_RULES = (
    _stack_has("sequence_parallel", Axis.SEQUENCE),
    Rule(
        reason="experts under tensor parallelism need sequence parallelism",
        keeps=_experts_have_sequence_parallel,
    ),
    Rule(reason="the sequence does not split over tensor x context parallelism", keeps=_sequence_splits_over_tensor),
)
EXPERT_RULES = (
    _stack_has("expert_parallel", Axis.EXPERT),
    Rule(reason="expert-tensor parallelism does not divide the width of an expert", keeps=_expert_width_divides),
    Rule(reason="expert x expert-tensor parallelism does not divide the devices of a stage", keeps=_expert_mesh_fits),
)
BATCH_RULES = (Rule(reason="the micro-batch does not divide the batch of a replica", keeps=_replica_batch_divides),)
STREAMS_FILL = Rule(reason="DualPipe needs two micro-batches a stage, an even number of them", keeps=_streams_fill)
PIPELINE_RULES = (
    Rule(reason="the training software does not run the pipeline schedule", keeps=_stack_runs),
    Rule(reason="there are more pipeline chunks than layers", keeps=_chunks_have_layers),
    Rule(reason="DualPipe needs an even number of stages", keeps=_mirror_is_even),
    Rule(reason="interleaving needs micro-batches in multiples of the pipeline stages", keeps=_interleaving_fills),
    Rule(reason="a zero-bubble schedule needs as many micro-batches as stages", keeps=_zero_bubble_fills),
    STREAMS_FILL,
)
VOCABULARY_RULES = (
    Rule(reason="the training software does not share the vocabulary over stages", keeps=_stack_shares_vocabulary),
    Rule(reason="only 1f1b and v-half share the vocabulary over stages", keeps=_schedule_shares_vocabulary),
)
RECOMPUTE_RULES = (
    Rule(reason="the training software recomputes all layers or none", keeps=_stack_counts_recomputed),
    Rule(reason="chunks of one layer recompute it or don't", keeps=_chunks_have_several),
)
