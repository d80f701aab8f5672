"""What the reference launcher is expected to keep for backward passes, by hand and by laws; tests/targets runs it."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_model, small_workload

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Recompute
from meshwright.planner.ledger import Workload, ledger_of
from meshwright.planner.ledger.passes import Kind, passes_of

# One sequence of 32 tokens, 32 channels, 8 query and 4 key heads of 4 channels, a width of 48, 64 words; in fp32.
TOKENS = 4 * 32 * 32
NORM = 2 * TOKENS + 4 * 32
QUERIES, KEYS = 4 * 32 * 8 * 4, 4 * 32 * 4 * 4
ROTARY, SUMS = 4 * 4 * 32 * 2, 4 * 32 * 8
ATTENTION = ROTARY + QUERIES + 2 * KEYS + QUERIES + SUMS
MLP = 4 * 4 * 32 * 48
LAYER = 2 * NORM + 2 * TOKENS + ATTENTION + MLP
LOSS = 4 * 32 * 64 + 4
HEAD = NORM + TOKENS + LOSS
BATCH = 8 * 4 * 32  # words of four micro-batches, or targets
V = {"pipeline_parallel": 2, "virtual_pipeline": 2}


def kept(workload: Workload, rank: int = 0) -> int:
    return ledger_of(workload)[rank].activation_bytes


def test_one_micro_batch_at_a_time() -> None:
    assert kept(small_workload()) == 4 * LAYER + HEAD + 2 * BATCH


def test_layers_computed_again_keep_their_input() -> None:
    assert kept(small_workload(recompute=Recompute.FULL)) == 4 * TOKENS + HEAD + 2 * BATCH
    some = small_workload(recompute=Recompute.FULL, recompute_layers=3)
    assert kept(some) == 3 * TOKENS + LAYER + HEAD + 2 * BATCH
    cores = small_workload(recompute=Recompute.SELECTIVE)
    assert kept(cores) == 4 * (LAYER - SUMS) + HEAD + 2 * BATCH


def test_tensor_ranks_share_heads_and_widths() -> None:
    shared = (QUERIES + 2 * KEYS + QUERIES + SUMS + MLP) // 2
    whole = 4 * (2 * NORM + 2 * TOKENS + ROTARY + shared) + HEAD + 2 * BATCH
    assert kept(small_workload(tensor_parallel=2)) == whole
    # of norms, all is cut; what the matrices are given is whole again
    cut = whole - (4 * 2 + 1) * NORM // 2
    assert kept(small_workload(tensor_parallel=2, sequence_parallel=True)) == cut


@pytest.mark.parametrize("method", [ContextMethod.ALL_GATHER, ContextMethod.ULYSSES])
def test_context_ranks_share_tokens(method: ContextMethod) -> None:
    more = KEYS + 4 * 16 * 32 if method is ContextMethod.ALL_GATHER else QUERIES // 2
    halves = (4 * LAYER + HEAD - 4) // 2 + 4 + 2 * BATCH // 2
    assert kept(small_workload(context_parallel=2, context_method=method)) == halves + 4 * more


def test_replicas_keep_what_each_would_alone() -> None:
    alone = kept(small_workload())
    for stage in (0, 1, 2, 3):
        assert kept(small_workload(data_parallel=2, zero_stage=stage, zero_shard=2 if stage else 1)) == alone


def test_experts_keep_rows() -> None:
    routed = small_workload(small_model(experts=True), data_parallel=2, expert_parallel=2)
    rows, width = 2 * 32, 24
    mixture = TOKENS + 4 * 32 * 4 + 8 * rows  # router's input and weights, choices
    mixture += 2 * 8 * rows + 4 * rows * (2 * 32 + 1)  # rows where from and where to, mapped, weighted, their weights
    mixture += 8 * rows + 4 * rows * 32  # rows by expert, mapped by expert
    mixture += 4 * rows * (32 + 4 * width)
    assert kept(routed) == 4 * LAYER + 2 * (mixture - TOKENS - MLP) + HEAD + 2 * BATCH
    copied = small_workload(small_model(experts=True), data_parallel=2)
    assert kept(routed) - kept(copied) == 2 * (8 * rows + 4 * rows * 32)


def test_sixteen_bits_leave_norms_and_the_loss() -> None:
    half = replace(small_workload(), element_bytes=2)
    layer = 2 * NORM + TOKENS + (ATTENTION - SUMS) // 2 + SUMS + MLP // 2
    assert kept(half) == 4 * layer + NORM + TOKENS // 2 + LOSS + 2 * BATCH


def test_stages_keep_micro_batches_in_flight() -> None:
    stage, last = 2 * LAYER, 2 * LAYER + HEAD
    for schedule, first, second in (
        (Schedule.GPIPE, 4 * stage, 4 * last),
        (Schedule.ONE_F_ONE_B, 2 * stage, last),
        # the second stage keeps one for its weights, without the loss, whose inputs have their gradients
        (Schedule.ZERO_BUBBLE_H1, 2 * stage, 2 * last - LOSS),
    ):
        workload = small_workload(pipeline_parallel=2, schedule=schedule)
        assert (kept(workload), kept(workload, 1)) == (first + BATCH, second + BATCH)


def test_chunks_of_a_stage_keep_their_own() -> None:
    # before its first backward pass the first stage runs each chunk twice, and the first one once more
    interleaved = small_workload(**V, schedule=Schedule.INTERLEAVED)
    assert kept(interleaved) == 5 * LAYER + BATCH
    assert kept(interleaved, 1) == 3 * LAYER + HEAD + BATCH


PIPELINES = st.builds(
    lambda stages, rounds, kind: small_workload(
        small_model(layers=stages * kind[1]),
        micro_batches=2 * stages * rounds,
        pipeline_parallel=stages,
        virtual_pipeline=kind[1],
        schedule=kind[0],
    ),
    st.integers(2, 5),
    st.integers(1, 3),
    st.one_of(
        st.tuples(st.sampled_from([Schedule.GPIPE, Schedule.ONE_F_ONE_B]), st.just(1)),
        st.tuples(st.sampled_from([Schedule.INTERLEAVED, Schedule.ZERO_BUBBLE_H1]), st.integers(1, 3)),
        st.tuples(st.sampled_from([Schedule.ZERO_BUBBLE_V, Schedule.DUAL_PIPE_V]), st.just(2)),
    ),
)


@given(workload=PIPELINES)
def test_each_chunk_runs_each_micro_batch_both_ways(workload: Workload) -> None:
    for stage in range(workload.layout.pipeline_parallel):
        done: Counter[tuple[Kind, int]] = Counter()
        for kind, chunk in passes_of(workload, stage):
            done[kind, chunk] += 1
            backward = done[Kind.BACKWARD, chunk] + done[Kind.INPUTS, chunk]
            assert done[Kind.WEIGHTS, chunk] <= done[Kind.INPUTS, chunk]
            assert backward <= done[Kind.FORWARD, chunk] <= workload.micro_batches
        for chunk in range(workload.layout.virtual_pipeline):
            assert done[Kind.WEIGHTS, chunk] == done[Kind.INPUTS, chunk]
            assert done[Kind.FORWARD, chunk] == workload.micro_batches
            assert done[Kind.BACKWARD, chunk] + done[Kind.INPUTS, chunk] == workload.micro_batches


@given(workload=PIPELINES)
def test_no_more_is_kept_than_by_gpipe(workload: Workload) -> None:
    layers = len(workload.model.layers) // workload.layout.pipeline_parallel
    batch = workload.micro_batches * 8 * 32
    for own in ledger_of(workload):
        most = workload.micro_batches * (layers * LAYER + HEAD) + 2 * batch
        assert layers * LAYER // workload.layout.virtual_pipeline < own.activation_bytes <= most
