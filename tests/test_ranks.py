"""Ranks and groups: Megatron's own examples by hand, and the law that groups partition the ranks."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import Layout
from meshwright.costmodels.stages import stage_chunks
from meshwright.planner.ranks import MESH_ORDERS, RankPlan, mesh_axes, rank_plan

MESH_ORDER = MESH_ORDERS[AxisOrder.PIPELINE_OUTERMOST]

DEGREES = st.integers(min_value=1, max_value=4)
LAYOUTS = st.builds(
    Layout,
    tensor_parallel=DEGREES,
    context_parallel=DEGREES,
    pipeline_parallel=DEGREES,
    data_parallel=DEGREES,
    virtual_pipeline=st.integers(1, 2),
    axis_order=st.sampled_from(AxisOrder),
).filter(lambda layout: layout.context_parallel == 1 or layout.axis_order is AxisOrder.PIPELINE_OUTERMOST)


def plan_of(layout: Layout, *, layers: int, rank: int) -> RankPlan:
    stages = [held.layers for held in stage_chunks(layers, layout)]
    return rank_plan(layout, stages=stages, rank=rank)


def test_mixture_of_64_ranks_as_megatron_groups_it() -> None:
    layout = Layout(tensor_parallel=2, pipeline_parallel=2, data_parallel=16, expert_parallel=8)
    groups = plan_of(layout, layers=8, rank=0).groups
    assert groups["tensor"] == (0, 1)
    assert groups["expert"] == tuple(range(8))
    assert groups["expert_data"] == (0, 8, 16, 24)
    assert groups["pipeline"] == (0, 32)
    assert groups["data"] == tuple(range(0, 32, 2))
    assert groups["data_context"] == groups["data"]
    assert groups["expert_tensor"] == (0,)


def test_dense_example_of_16_ranks_by_hand() -> None:
    layout = Layout(tensor_parallel=2, context_parallel=2, data_parallel=2, pipeline_parallel=2)
    plan = plan_of(layout, layers=6, rank=13)
    assert [plan.coordinates[axis] for axis in MESH_ORDER] == [1, 0, 1, 1]
    assert plan.groups["tensor"] == (12, 13)
    assert plan.groups["context"] == (13, 15)
    assert plan.groups["data"] == (9, 13)
    assert plan.groups["data_context"] == (9, 11, 13, 15)
    assert plan.groups["pipeline"] == (5, 13)
    assert (plan.stage, plan.chunks, plan.embedding, plan.head) == (1, ((3, 4, 5),), False, True)


def test_data_outermost_by_hand() -> None:
    """Three replicas of four stages of two tensor ranks: rank = tensor + 2 (stage + 4 replica)."""
    layout = Layout(tensor_parallel=2, pipeline_parallel=4, data_parallel=3, axis_order=AxisOrder.DATA_OUTERMOST)
    plan = plan_of(layout, layers=8, rank=13)
    assert plan.groups["tensor"] == (12, 13)
    assert plan.groups["pipeline"] == (9, 11, 13, 15)
    assert plan.groups["data"] == plan.groups["data_context"] == (5, 13, 21)
    assert (plan.stage, plan.chunks) == (2, ((4, 5),))
    assert "expert_data" not in plan.groups
    usual = plan_of(replace(layout, axis_order=AxisOrder.PIPELINE_OUTERMOST), layers=8, rank=13)
    assert usual.groups["pipeline"] == (1, 7, 13, 19)
    assert usual.groups["data"] == (13, 15, 17)


def test_experts_where_data_is_outermost_as_megatron_groups_them() -> None:
    """As tp-cp-ep-pp-dp numbers 16 ranks of tensor 4, pipeline 2, expert 2 and expert-tensor 2."""
    layout = Layout(
        tensor_parallel=4,
        pipeline_parallel=2,
        data_parallel=2,
        expert_parallel=2,
        expert_tensor_parallel=2,
        axis_order=AxisOrder.DATA_OUTERMOST,
    )
    plan = plan_of(layout, layers=2, rank=9)
    assert plan.groups["expert_tensor"] == (8, 9)
    assert plan.groups["expert"] == (9, 11)
    assert plan.groups["pipeline"] == (9, 13)
    assert plan.groups["expert_data"] == plan.groups["data"] == (1, 9)
    assert plan.stage == 0


def test_chunks_of_an_interleaved_rank() -> None:
    layout = Layout(pipeline_parallel=2, virtual_pipeline=2)
    assert plan_of(layout, layers=8, rank=0).chunks == ((0, 1), (4, 5))
    assert plan_of(layout, layers=8, rank=1).chunks == ((2, 3), (6, 7))


def test_a_rank_may_be_a_number_of_numpy_s() -> None:
    layout = Layout(data_parallel=4)
    found = plan_of(layout, layers=2, rank=np.int64(3))
    assert found == plan_of(layout, layers=2, rank=3)
    assert type(found.rank) is int


@pytest.mark.parametrize("rank", [-1, 4, 1.5, 1.0, "3", None, True, [0]])
def test_rank_outside_of_the_plan(rank: object) -> None:
    told = f"rank {rank!r} is not one of the plan's, which are the whole numbers from 0 to 3"
    with pytest.raises(InputError, match=re.escape(told)):
        plan_of(Layout(data_parallel=4), layers=2, rank=rank)


@given(LAYOUTS, st.data())
def test_every_axis_partitions_the_ranks(layout: Layout, data: st.DataObject) -> None:
    stage = layout.tensor_parallel * layout.context_parallel * layout.data_parallel
    expert = data.draw(st.sampled_from([degree for degree in range(1, stage + 1) if stage % degree == 0]))
    layout = Layout(
        axis_order=layout.axis_order,
        tensor_parallel=layout.tensor_parallel,
        context_parallel=layout.context_parallel,
        pipeline_parallel=layout.pipeline_parallel,
        data_parallel=layout.data_parallel,
        expert_parallel=expert,
    )
    for name, axis in mesh_axes(layout).items():
        seen = {axis.members(rank) for rank in range(layout.world_size)}
        assert sorted(itertools.chain.from_iterable(seen)) == list(range(layout.world_size)), name
        assert all(len(group) == axis.size for group in seen), name
        assert all(group[axis.coordinate(rank)] == rank for group in seen for rank in group), name


@given(LAYOUTS)
def test_coordinates_name_one_rank_and_groups_differ_in_one_axis(layout: Layout) -> None:
    plans = [plan_of(layout, layers=64, rank=rank) for rank in range(layout.world_size)]
    order = MESH_ORDERS[layout.axis_order]
    names = [tuple(plan.coordinates[axis] for axis in order) for plan in plans]
    degrees = [getattr(layout, f"{axis}_parallel") for axis in order]
    assert sorted(names) == sorted(itertools.product(*map(range, degrees)))
    for plan, name in zip(plans, names, strict=True):
        for position, axis in enumerate(order):
            others = [names[member][:position] + names[member][position + 1 :] for member in plan.groups[axis]]
            assert set(others) == {name[:position] + name[position + 1 :]}


@given(LAYOUTS)
def test_stages_hold_every_layer_once(layout: Layout) -> None:
    layers = 64
    first_replica = mesh_axes(layout)["pipeline"].members(0)
    held = [
        layer for rank in first_replica for chunk in plan_of(layout, layers=layers, rank=rank).chunks for layer in chunk
    ]
    assert sorted(held) == list(range(layers))
