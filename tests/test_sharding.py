"""Over how many ranks a state is sharded, and which of them exchange it."""

from collections.abc import Callable

import pytest

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.sharding import Sharding, data_group, dense_sharding, expert_data_group, expert_sharding

PARTS = ("optimizer", "gradients", "parameters", "backward")


def sizes(sharding: Sharding) -> tuple[int, ...]:
    """Give the shards of optimizer states, gradients, parameters, and parameters until the backward pass."""
    return tuple(int(getattr(sharding, part)[0, 0]) for part in PARTS)


def dense(job: Job, layout: Layout) -> Sharding:
    return dense_sharding(job, LayoutTable.of([layout]))


@pytest.mark.parametrize(
    ("stage", "expected"), [(0, (1, 1, 1, 1)), (1, (8, 1, 1, 1)), (2, (8, 8, 1, 1)), (3, (8,) * 4)]
)
def test_each_zero_stage_shards_one_part_more(
    round_job: Callable[..., Job], stage: int, expected: tuple[int, ...]
) -> None:
    assert sizes(dense(round_job(), Layout(data_parallel=8, zero_stage=stage, zero_shard=8))) == expected


def test_shards_may_differ_from_stage_3_on(round_job: Callable[..., Job]) -> None:
    shards = {"zero_shard": 16, "gradient_shard": 8, "parameter_shard": 4, "backward_shard": 2}
    found = [sizes(dense(round_job(), Layout(data_parallel=16, zero_stage=stage, **shards))) for stage in (1, 2, 3)]
    assert found == [(16, 1, 1, 1), (16, 8, 1, 1), (16, 8, 4, 2)]


def test_what_is_gathered_is_never_kept_wider_than_it_was(round_job: Callable[..., Job]) -> None:
    layout = Layout(data_parallel=8, zero_stage=3, zero_shard=8, parameter_shard=2)
    assert sizes(dense(round_job(), layout)) == (8, 8, 2, 2)


def test_shards_turn_into_others_among_ranks_one_shard_apart(round_job: Callable[..., Job]) -> None:
    # Four tensor ranks, 8 replicas of 2 context ranks: gradients over 4 of the 16 become shards over 16 of every
    # fourth of them.
    layout = Layout(
        tensor_parallel=4, context_parallel=2, data_parallel=8, zero_stage=2, zero_shard=16, gradient_shard=4
    )
    sharding = dense(round_job(), layout)
    group = sharding.between(sharding.gradients, sharding.optimizer)
    assert (group.size.tolist(), group.stride.tolist()) == ([[4]], [[16]])
    assert (sharding.copies.tolist(), sharding.stride.tolist()) == ([[16]], [[4]])


def test_experts_are_sharded_within_the_same_ranks(round_job: Callable[..., Job]) -> None:
    # 2 tensor ranks, 16 replicas, experts over 8 of the 32: copies are 8 apart. 16 dense ranks span all 4 of them, 8
    # span 2, and a node's 2 have but one.
    layouts = [
        Layout(tensor_parallel=2, data_parallel=16, expert_parallel=8, zero_stage=3, zero_shard=size)
        for size in (16, 8, 2)
    ]
    group = expert_data_group(LayoutTable.of(layouts[:1]))
    assert (group.size.tolist(), group.stride.tolist()) == ([4], [8])
    sharding = expert_sharding(round_job(), LayoutTable.of(layouts))
    assert sharding.parameters.ravel().tolist() == [4, 2, 1]
    assert data_group(LayoutTable.of(layouts[:1])).size.tolist() == [16]


@pytest.mark.parametrize("stage", [2, 3])
def test_a_stack_may_hold_everything_whole_in_a_pipeline(round_job: Callable[..., Job], stage: int) -> None:
    job = round_job(stack={"reshard_in_pipeline": False})
    deep = Layout(data_parallel=8, pipeline_parallel=2, zero_stage=stage, zero_shard=8)
    assert sizes(dense(job, deep)) == (8, 1, 1, 1)
    assert sizes(dense(job, Layout(data_parallel=8, zero_stage=3, zero_shard=8))) == (8, 8, 8, 8)


def test_a_layout_says_only_what_differs() -> None:
    layouts = [
        Layout(data_parallel=8, zero_stage=3, zero_shard=8),
        Layout(data_parallel=8, zero_stage=3, zero_shard=8, gradient_shard=4),
        Layout(data_parallel=8, zero_stage=3, zero_shard=8, parameter_shard=2),
        Layout(data_parallel=8, zero_stage=3, zero_shard=8, parameter_shard=4, backward_shard=1),
    ]
    table = LayoutTable.of(layouts)
    assert [table.row(index) for index in range(4)] == layouts
    assert table.gradient_shard.tolist() == [8, 4, 8, 8]
    assert table.parameter_shard.tolist() == [8, 8, 2, 4]
    assert table.backward_shard.tolist() == [8, 8, 2, 1]
