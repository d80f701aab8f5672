"""What the reference launcher is expected to hold and exchange, by hand and by laws; tests/targets runs it."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import HEAD_DIM, HEADS, HIDDEN, KV_HEADS, WORDS, small_model, small_workload

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.costmodels.parameters import total_parameters
from meshwright.costmodels.transformer import Experts, Transformer
from meshwright.planner.emission.torch.obstacles import workload_obstacles
from meshwright.planner.ledger import Workload, ledger_of
from meshwright.planner.ledger.parameters import elements_on_shard, padded_shard_elements
from meshwright.planner.ledger.routing import rows_by_expert
from meshwright.planner.ledger.transfers import Kind, by_kind, totals

FLOAT = 4
MIXTURE = small_model(experts=True, shared=True)
# query and output, key and value, three matrices of the MLP, two norms
LAYER = 2 * HIDDEN * HEADS * HEAD_DIM + 2 * HIDDEN * KV_HEADS * HEAD_DIM + 3 * HIDDEN * 48 + 2 * HIDDEN
ENDS = 2 * WORDS * HIDDEN + HIDDEN
TOKENS = 32 * HIDDEN * FLOAT  # bytes of the hidden states of a micro-batch of one sequence


def kinds(workload: Workload, rank: int = 0) -> dict[str, tuple[int, int]]:
    return {str(kind): value for kind, value in by_kind(ledger_of(workload)[rank].transfers).items()}


def test_one_process_exchanges_nothing() -> None:
    (rank,) = ledger_of(small_workload())
    assert by_kind(rank.transfers) == {}
    assert rank.parameter_bytes == rank.gradient_bytes == (4 * LAYER + ENDS) * FLOAT
    assert rank.optimizer_bytes == 2 * rank.parameter_bytes


@pytest.mark.parametrize("model", [small_model(), small_model(experts=True), MIXTURE])
def test_parameters_are_those_of_the_model(model: Transformer) -> None:
    workload = replace(small_workload(), model=model)
    assert ledger_of(workload)[0].parameter_bytes == FLOAT * total_parameters(workload.model)


def test_plain_replicas_sum_each_unit_once() -> None:
    units = 4 + 2  # layers, embedding, head
    assert kinds(small_workload(data_parallel=2)) == {"all_reduce": (units, (4 * LAYER + ENDS) * FLOAT)}


def test_zero_exchanges_by_stage() -> None:
    whole = (4 * LAYER + ENDS) * FLOAT
    expected = {
        1: {"all_gather": (6, whole), "reduce_scatter": (6, whole)},
        2: {"all_gather": (6, whole), "reduce_scatter": (4 * 6, 4 * whole)},
        # layers twice a micro-batch, embedding and head once
        3: {
            "all_gather": (4 * (2 * 4 + 2), 4 * (2 * 4 * LAYER + ENDS) * FLOAT),
            "reduce_scatter": (4 * 6, 4 * whole),
        },
    }
    for stage, transfers in expected.items():
        assert kinds(small_workload(data_parallel=2, zero_stage=stage, zero_shard=2)) == transfers


def test_hybrid_shards_are_summed_over_copies_once_a_step() -> None:
    found = totals(ledger_of(small_workload(data_parallel=4, zero_stage=3, zero_shard=2))[1].transfers)
    assert found[Kind.ALL_REDUCE, (1, 3)] == (6, (4 * LAYER + ENDS) * FLOAT // 2)
    assert {ranks for kind, ranks in found if kind is not Kind.ALL_REDUCE} == {(0, 1)}


def test_tensor_ranks_without_cut_tokens_sum_them() -> None:
    # each layer twice forwards and twice backwards, the embedding forwards, the head backwards; logits are gathered
    assert kinds(small_workload(tensor_parallel=2)) == {
        "all_gather": (4, 4 * 32 * WORDS * FLOAT),
        "all_reduce": (4 * (4 * 4 + 2), 4 * (4 * 4 + 2) * TOKENS),
    }


def test_tensor_ranks_with_cut_tokens_gather_and_scatter_them() -> None:
    passes = 4 * (4 * 4 + 2)
    assert kinds(small_workload(tensor_parallel=2, sequence_parallel=True)) == {
        "all_gather": (passes + 4, passes * TOKENS + 4 * 32 * WORDS * FLOAT),
        "reduce_scatter": (passes, passes * TOKENS),
        "all_reduce": (2 * 4 + 1, (2 * 4 + 1) * HIDDEN * FLOAT),  # the norms' gradients, once
    }


def test_recomputed_layers_repeat_all_but_their_last_exchange() -> None:
    plain = kinds(small_workload(tensor_parallel=2, sequence_parallel=True))
    again = kinds(
        small_workload(tensor_parallel=2, sequence_parallel=True, recompute=Recompute.FULL, recompute_layers=3)
    )
    assert again["all_gather"][0] - plain["all_gather"][0] == 4 * 3 * 2
    assert again["reduce_scatter"][0] - plain["reduce_scatter"][0] == 4 * 3


def test_context_ranks_gather_keys_or_exchange_heads() -> None:
    gathered = kinds(small_workload(context_parallel=2, context_method=ContextMethod.ALL_GATHER))
    both = 2 * 32 * KV_HEADS * HEAD_DIM * FLOAT
    assert gathered["all_gather"] == gathered["reduce_scatter"] == (4 * 4, 4 * 4 * both)
    exchanged = kinds(small_workload(context_parallel=2, context_method=ContextMethod.ULYSSES))
    heads = 16 * 2 * (HEADS + KV_HEADS) * HEAD_DIM * FLOAT
    assert exchanged["all_to_all"] == (2 * 4 * 4 * 4, 2 * 4 * 4 * heads)


def test_experts_get_rows_and_give_them_back() -> None:
    found = kinds(small_workload(MIXTURE, data_parallel=2, expert_parallel=2))
    # two mixtures, four micro-batches, out and back, forwards and backwards, of two choices of 32 tokens
    assert found["all_to_all"] == (2 * 4 * 4, 2 * 4 * 4 * 2 * TOKENS)


def test_a_folded_pipeline_sends_nothing_where_it_folds() -> None:
    workload = small_workload(pipeline_parallel=2, virtual_pipeline=2, schedule=Schedule.ZERO_BUBBLE_V)
    assert kinds(workload, 0)["send"] == (2 * 4, 2 * 4 * TOKENS)
    assert kinds(workload, 1)["send"] == (2 * 4, 2 * 4 * TOKENS)
    looped = small_workload(pipeline_parallel=2, virtual_pipeline=2, schedule=Schedule.INTERLEAVED)
    assert [kinds(looped, rank)["send"][0] for rank in (0, 1)] == [3 * 4, 3 * 4]


@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 5))
def test_shards_sum_to_the_whole(rows: int, shards: int, columns: int) -> None:
    held = [elements_on_shard((rows, columns), shards=shards, index=index) for index in range(shards)]
    assert sum(held) == rows * columns
    assert max(held) == padded_shard_elements((rows, columns), shards=shards)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    tensor, context, data, pipeline = (draw(st.sampled_from((1, 2))) for _ in range(4))
    cut = tensor > 1 and draw(st.booleans())
    mixture = (cut or tensor == 1) and draw(st.booleans())
    expert = draw(st.sampled_from([1, 2, 4])) if mixture and tensor * context * data % 4 == 0 else 1
    shard = draw(st.sampled_from([each for each in (1, 2, 4) if data * context % each == 0]))
    recompute = draw(st.sampled_from(Recompute))
    folded = pipeline > 1 and recompute is not Recompute.FULL and draw(st.booleans())
    return small_workload(
        MIXTURE if mixture else small_model(),
        sequence_length=draw(st.sampled_from((8, 20, 32))),
        tensor_parallel=tensor,
        sequence_parallel=cut,
        context_parallel=context,
        context_method=draw(st.sampled_from((ContextMethod.ALL_GATHER, ContextMethod.ULYSSES))),
        data_parallel=data,
        pipeline_parallel=pipeline,
        virtual_pipeline=2 if folded else 1,
        schedule=Schedule.ZERO_BUBBLE_V if folded else Schedule.ONE_F_ONE_B,
        expert_parallel=expert,
        zero_stage=draw(st.sampled_from((0, 1, 2, 3))),
        zero_shard=shard,
        recompute=recompute,
    )


@given(workloads())
def test_all_members_of_a_group_take_part(workload: Workload) -> None:
    assert list(workload_obstacles(workload)) == []
    ledgers = ledger_of(workload)
    found = [totals(ledger.transfers) for ledger in ledgers]
    for rank, own in enumerate(found):
        for (kind, ranks), (count, payload_bytes) in own.items():
            assert rank in ranks
            if kind in (Kind.ALL_GATHER, Kind.REDUCE_SCATTER, Kind.ALL_REDUCE):
                assert {found[member][kind, ranks] for member in ranks} == {(count, payload_bytes)}
            if kind is Kind.ALL_TO_ALL:
                assert {found[member][kind, ranks][0] for member in ranks} == {count}
    messages = Counter[Kind]()
    for ledger in ledgers:
        for each in ledger.transfers:
            messages[each.kind] += each.payload_bytes if each.kind in (Kind.SEND, Kind.RECV) else 0
    assert messages[Kind.SEND] == messages[Kind.RECV]


@given(workloads())
def test_what_ranks_hold_is_the_model_once_a_copy(workload: Workload) -> None:
    layout, model = workload.layout, workload.model
    held = sum(ledger.parameter_bytes for ledger in ledger_of(workload))
    if layout.tensor_parallel == layout.expert_parallel == 1:
        shards = layout.zero_shard if layout.zero_stage else 1
        copies = layout.data_parallel * layout.context_parallel // shards
        assert held == copies * FLOAT * total_parameters(model)
    assert held >= FLOAT * total_parameters(model)


@given(st.integers(1, 3), st.sampled_from((1, 2, 4)), st.sampled_from((1, 2, 4)), st.integers(1, 6))
def test_routes_by_rank_are_those_of_all_positions(sequences: int, context: int, tensor: int, each: int) -> None:
    layout = Layout(
        tensor_parallel=tensor, sequence_parallel=tensor > 1, context_parallel=context, micro_batch=sequences
    )
    workload = replace(small_workload(MIXTURE, sequence_length=each * context * tensor), layout=layout)
    experts = MIXTURE.layers[0].mlp
    assert isinstance(experts, Experts)
    for rank in range(context * tensor):
        own = range(rank * each, (rank + 1) * each)  # ranks count through tensor first, as pieces of a sequence do
        chosen = Counter((position * 2 + choice) % 4 for position in own for choice in range(2))
        assert rows_by_expert(workload, experts, rank) == tuple(sequences * chosen[expert] for expert in range(4))


def test_a_global_batch_is_all_micro_batches() -> None:
    assert small_workload(micro_batches=3, data_parallel=2, micro_batch=5).global_batch == math.prod((3, 2, 5))
