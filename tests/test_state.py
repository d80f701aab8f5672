"""Parameters, gradients and optimizer states of a rank, against ZeRO's counts and whole models."""

from collections.abc import Callable

import numpy as np
import pytest

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.parameters import mtp_parameters, total_parameters
from meshwright.costmodels.stage_table import stage_table
from meshwright.costmodels.state import (
    StageParameters,
    local_vocabulary,
    stage_parameters,
    state_bytes,
)

MIXTURE = {"experts": 8, "top_k": 2, "ffn_hidden": 512}
HALF = {"gradient_bytes": 2}
ZERO = [Layout(data_parallel=8, zero_stage=stage, zero_shard=8) for stage in (0, 1, 2, 3)]


def parameters_of(job: Job, layout: Layout) -> tuple[float, float]:
    """Give dense parameters and experts of one rank of each stage, summed over the stages."""
    layouts = LayoutTable.of([layout])
    stages = stage_table(job.model, layouts)
    counts = stage_parameters(job, layouts, stages)
    return float((counts.dense * stages.multiplicity).sum()), float((counts.experts * stages.multiplicity).sum())


def bytes_per_parameter(job: Job, layouts: list[Layout], *, dense: float, experts: float = 0.0) -> list[list[float]]:
    """Give parameters, gradients and optimizer states of each layout, for so many millions of parameters."""
    counts = StageParameters(
        dense=np.full((len(layouts), 1), dense * 1e6), experts=np.full((len(layouts), 1), experts * 1e6)
    )
    parts = state_bytes(job, LayoutTable.of(layouts), counts)
    optimizer = parts["master_weights"] + parts["moments"]
    columns = (parts["parameters"], parts["gradients"], optimizer)
    return [[float(column[row, 0]) / 1e6 for column in columns] for row in range(len(layouts))]


def test_zero_bytes(round_job: Callable[..., Job]) -> None:
    # Rajbhandari et al. 2020 (arXiv 1910.02054), figure 1: 2 + 2 + 12 bytes a parameter; of N ranks stage 1 leaves
    # 4 + 12 / N, stage 2 2 + 14 / N, stage 3 16 / N.
    counted = bytes_per_parameter(round_job(stack=HALF), ZERO, dense=1.0)
    assert counted == [[2, 2, 12], [2, 2, 12 / 8], [2, 2 / 8, 12 / 8], [2 / 8, 2 / 8, 12 / 8]]
    assert [sum(parts) for parts in counted] == pytest.approx([16, 4 + 12 / 8, 2 + 14 / 8, 16 / 8])


def test_gradients_may_be_32_bit(round_job: Callable[..., Job]) -> None:
    # Megatron accumulates in fp32: 18 bytes, 6 + 12 / d under its distributed optimizer.
    counted = bytes_per_parameter(round_job(), ZERO[:2], dense=1.0)
    assert [sum(parts) for parts in counted] == pytest.approx([18, 6 + 12 / 8])


def test_without_master_weights_the_shards_are_32_bit(round_job: Callable[..., Job]) -> None:
    counted = bytes_per_parameter(round_job(stack={"master_bytes": 0}), ZERO[3:], dense=1.0)
    assert counted == [[4 / 8, 4 / 8, 8 / 8]]


def test_a_shard_may_be_smaller_than_the_replicas(round_job: Callable[..., Job]) -> None:
    hybrid = Layout(data_parallel=8, zero_stage=3, zero_shard=2)
    assert bytes_per_parameter(round_job(stack=HALF), [hybrid], dense=1.0) == [[1, 1, 6]]


def test_instances_of_the_optimizer_hold_its_states_once_each(round_job: Callable[..., Job]) -> None:
    # ZeRO-1 over 2 of 8 ranks, and ZeRO-2: 12 bytes of states are halved, and of stage 2 the gradients too.
    hybrid = [Layout(data_parallel=8, zero_stage=stage, zero_shard=2) for stage in (1, 2)]
    assert bytes_per_parameter(round_job(stack=HALF), hybrid, dense=1.0) == [[2, 2, 6], [2, 1, 6]]


def test_context_ranks_hold_shards_too(round_job: Callable[..., Job]) -> None:
    layout = Layout(data_parallel=2, context_parallel=4, zero_stage=3, zero_shard=8)
    assert bytes_per_parameter(round_job(stack=HALF), [layout], dense=1.0) == [[0.25, 0.25, 1.5]]


def test_experts_are_sharded_over_their_own_fewer_copies(round_job: Callable[..., Job]) -> None:
    # 8 data ranks, experts over 4 of them: 2 copies of each expert.
    layout = Layout(data_parallel=8, expert_parallel=4, zero_stage=1, zero_shard=8)
    counted = bytes_per_parameter(round_job(stack=HALF), [layout], dense=0.0, experts=1.0)
    assert counted == [[2, 2, 12 / 2]]


def test_parts_may_be_sharded_over_different_numbers_of_ranks(round_job: Callable[..., Job]) -> None:
    # The three levels of arXiv 2501.04266: of 16 ranks, parameters over the 2 dies of a card, gradients over 8 of a
    # node.
    three = Layout(data_parallel=16, zero_stage=3, zero_shard=16, gradient_shard=8, parameter_shard=2)
    assert bytes_per_parameter(round_job(stack=HALF), [three], dense=1.0) == [[2 / 2, 2 / 8, 12 / 16]]
    # Where there are no other 16-bit parameters, those of the step are a copy beside the fp32 shards.
    stack = HALF | {"master_bytes": 0}
    assert bytes_per_parameter(round_job(stack=stack), [three], dense=1.0) == [[2 / 2 + 4 / 16, 2 / 8, 8 / 16]]


def test_a_secondary_partition_is_a_copy_more(round_job: Callable[..., Job]) -> None:
    # hpZ of ZeRO++ (arXiv 2306.10209, section 3.2): 2 bytes over the 8 ranks of a node beside the shards over all 64.
    layout = Layout(data_parallel=64, zero_stage=3, zero_shard=64, backward_shard=8)
    assert bytes_per_parameter(round_job(stack=HALF), [layout], dense=1.0) == [[2 / 64 + 2 / 8, 2 / 64, 12 / 64]]


def test_held_whole_within_a_step_zero_3_is_zero_1(round_job: Callable[..., Job]) -> None:
    held = Layout(data_parallel=8, zero_stage=3, zero_shard=8, gradient_shard=1, parameter_shard=1)
    for master_bytes in (4, 0):
        job = round_job(stack={"master_bytes": master_bytes})
        found = bytes_per_parameter(job, [held, ZERO[1]], dense=1.0, experts=1.0)
        assert found[0] == found[1]


def test_one_rank_of_one_stage_holds_the_model(round_job: Callable[..., Job]) -> None:
    # 8 layers of 12 h^2 + 2 h (RMS norms), two word tables of 51200 h, a final norm: h = 1024.
    job = round_job()
    by_hand = 8 * (12 * 1024**2 + 2 * 1024) + 2 * 51200 * 1024 + 1024
    assert parameters_of(job, Layout()) == (by_hand, 0)
    assert total_parameters(job.model) == by_hand


@pytest.mark.parametrize("pipeline", [2, 4, 8])
def test_stages_add_up_to_the_model(round_job: Callable[..., Job], pipeline: int) -> None:
    job = round_job(model={"experts": MIXTURE, "positions": "learned", "max_positions": 2048, "embedding_norm": True})
    assert sum(parameters_of(job, Layout(pipeline_parallel=pipeline))) == total_parameters(job.model)


def test_a_tied_table_is_held_at_both_ends_of_a_pipeline(round_job: Callable[..., Job]) -> None:
    job = round_job(model={"tied_embeddings": True})
    assert sum(parameters_of(job, Layout())) == total_parameters(job.model)
    assert sum(parameters_of(job, Layout(pipeline_parallel=4))) == total_parameters(job.model) + 51200 * 1024


def test_tensor_parallelism_splits_matrices_and_copies_norms(round_job: Callable[..., Job]) -> None:
    expected = 8 * (12 * 1024**2 / 4 + 2 * 1024) + 2 * 51200 * 1024 / 4 + 1024
    assert parameters_of(round_job(), Layout(tensor_parallel=4)) == (expected, 0)


def test_expert_parallelism_splits_experts_and_copies_the_router(round_job: Callable[..., Job]) -> None:
    # Attention 4 h^2, router 8 h, norms 2 h; 8 experts of 2 x 512 h each over 4 x 2 ranks.
    job = round_job(model={"experts": MIXTURE})
    dense, experts = parameters_of(job, Layout(data_parallel=8, expert_parallel=4, expert_tensor_parallel=2))
    assert dense == 8 * (4 * 1024**2 + 8 * 1024 + 2 * 1024) + 2 * 51200 * 1024 + 1024
    assert experts == 8 * 8 * 2 * 512 * 1024 / 8


def test_multi_token_prediction_adds_its_modules_to_the_last_stage(round_job: Callable[..., Job]) -> None:
    job = round_job(model={"mtp_layers": 1})
    expected = total_parameters(job.model) + mtp_parameters(job.model)
    assert sum(parameters_of(job, Layout(pipeline_parallel=4))) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("vocab", "tensor", "padded"),
    [(50257, 1, 50304), (50257, 8, 51200), (51200, 8, 51200), (32000, 1, 32000), (32001, 2, 32256), (1, 4, 512)],
)
def test_vocabulary_is_padded_as_megatron_does(
    round_job: Callable[..., Job], vocab: int, tensor: int, padded: int
) -> None:
    # Megatron-LM's --make-vocab-size-divisible-by is 128, times tensor parallelism: GPT-2's 50257 become 51200 at 8.
    layouts = LayoutTable.of([Layout(tensor_parallel=tensor)])
    assert (tensor * local_vocabulary(round_job(model={"vocab": vocab}), layouts)).tolist() == [padded]


def test_stages_share_the_vocabulary_if_asked_to(round_job: Callable[..., Job]) -> None:
    # Four stages hold a quarter of the table and of the head each: of 51,200 rows 12,800.
    job = round_job()
    layouts = LayoutTable.of([Layout(pipeline_parallel=4, vocabulary_parallel=flag) for flag in (False, True)])
    stages = stage_table(job.model, layouts)
    alone, shared = stage_parameters(job, layouts, stages).dense
    table, norm = 51200 * job.model.hidden, job.model.hidden
    assert stages.multiplicity.tolist() == [[1, 2, 1], [4, 0, 0]]
    assert alone[0] - alone[1] == table
    assert shared[0] == alone[1] + 2 * table / 4 + norm


def test_deepspeed_keeps_16_bit_gradients_beside_fp32_ones(round_job: Callable[..., Job]) -> None:
    # Its BF16 optimizer: 2 + 4 + 2 + 12 bytes; in fp16 there is one 16-bit gradient alone.
    both = bytes_per_parameter(round_job(stack={"keeps_narrow_gradients": True}), ZERO[:1], dense=1.0)
    one = bytes_per_parameter(round_job(stack=HALF | {"keeps_narrow_gradients": True}), ZERO[:1], dense=1.0)
    assert (both, one) == ([[2, 6, 12]], [[2, 2, 12]])
