"""Gradient reductions, parameter gathers, the optimizer and tied embeddings, by hand on round machines."""

from collections.abc import Callable

import numpy as np
import pytest

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.stage_table import StageTable, stage_table
from meshwright.costmodels.state import StageParameters
from meshwright.costmodels.synchronisation import (
    StageWork,
    exposed_communication_s,
    gradient_reduction_s,
    optimizer_s,
    parameter_gather_s,
    tied_embedding_s,
)

MILLION = 1e6
NODE_BUS, FABRIC_BUS = 50e9, 20e9
"""Of four devices of a node, and of two nodes of four with all their NICs."""


def stages_of(job: Job, layout: Layout) -> tuple[LayoutTable, StageTable]:
    layouts = LayoutTable.of([layout])
    return layouts, stage_table(job.model, layouts)


def counted(dense: float = 0.0, experts: float = 0.0) -> StageParameters:
    return StageParameters(dense=np.array([[dense]]), experts=np.array([[experts]]))


def reduction_s(job: Job, layout: Layout, *, dense: float = 0.0, experts: float = 0.0) -> float:
    return float(gradient_reduction_s(job, LayoutTable.of([layout]), counted(dense, experts))[0, 0])


def gather_s(job: Job, layout: Layout, *, dense: float = 0.0, experts: float = 0.0) -> float:
    return float(parameter_gather_s(job, LayoutTable.of([layout]), counted(dense, experts))[0, 0])


def test_gradients_are_all_reduced_without_zero(round_job: Callable[..., Job]) -> None:
    # 8 replicas on 2 nodes: 2 x 7/8 of 4 MB at 20 GB/s, 2 x (2 x 1 us + 10 us).
    found = reduction_s(round_job(), Layout(data_parallel=8), dense=MILLION)
    assert found == pytest.approx(2 * 7 / 8 * 4e6 / FABRIC_BUS + 24e-6)


def test_zero_reduces_gradients_to_shards_and_gathers_parameters(round_job: Callable[..., Job]) -> None:
    # 7/8 of 4 MB of gradients, 7/8 of 2 MB of parameters; 3 steps of 1 us and 1 of 10 us each.
    layout = Layout(data_parallel=8, zero_stage=1, zero_shard=8)
    assert reduction_s(round_job(), layout, dense=MILLION) == pytest.approx(7 / 8 * 4e6 / FABRIC_BUS + 13e-6)
    assert gather_s(round_job(), layout, dense=MILLION) == pytest.approx(7 / 8 * 2e6 / FABRIC_BUS + 13e-6)


def test_gradients_on_the_wire_may_be_narrower(round_job: Callable[..., Job]) -> None:
    layout = Layout(data_parallel=8, zero_stage=1, zero_shard=8)
    found = reduction_s(round_job(stack={"reduce_bytes": 2}), layout, dense=MILLION)
    assert found == pytest.approx(7 / 8 * 2e6 / FABRIC_BUS + 13e-6)


def test_shards_inside_a_node_are_all_reduced_between_nodes(round_job: Callable[..., Job]) -> None:
    # Reduce-scatter of 4 MB over 4 of a node, then all-reduce of each quarter with its one partner at 5 GB/s.
    layout = Layout(data_parallel=8, zero_stage=1, zero_shard=4)
    within = 3 / 4 * 4e6 / NODE_BUS + 3e-6
    across = 2 * 1 / 2 * 1e6 / 5e9 + 20e-6
    assert reduction_s(round_job(), layout, dense=MILLION) == pytest.approx(within + across)
    assert gather_s(round_job(), layout, dense=MILLION) == pytest.approx(3 / 4 * 2e6 / NODE_BUS + 3e-6)


def test_experts_are_reduced_over_their_copies(round_job: Callable[..., Job]) -> None:
    # 8 replicas, experts over 4: 2 copies, one a node, 5 GB/s each.
    layout = Layout(data_parallel=8, expert_parallel=4)
    assert reduction_s(round_job(), layout, experts=MILLION) == pytest.approx(2 / 2 * 4e6 / 5e9 + 20e-6)


def test_one_replica_and_no_zero_send_nothing(round_job: Callable[..., Job]) -> None:
    assert reduction_s(round_job(), Layout(tensor_parallel=4), dense=MILLION) == 0.0
    assert gather_s(round_job(), Layout(data_parallel=8), dense=MILLION) == 0.0


def exposed(
    job: Job, layout: Layout, *, forward_s: float, backward_s: float, total: float = 4.0, stage: int = 0
) -> tuple[float, float]:
    """Give the exposed reduction and gather of a stage with a million dense parameters."""
    layouts, stages = stages_of(job, layout)
    shape = stages.index.shape
    found = exposed_communication_s(
        job,
        layouts,
        stages,
        StageParameters(dense=np.full(shape, MILLION), experts=np.zeros(shape)),
        StageWork(forward_s=np.full(shape, forward_s), backward_s=np.full(shape, backward_s)),
        total=np.array([total]),
    )
    return float(found[0][0, stage]), float(found[1][0, stage])


REDUCTION_S = 7 / 8 * 4e6 / FABRIC_BUS + 13e-6
GATHER_S = 7 / 8 * 2e6 / FABRIC_BUS + 13e-6


@pytest.mark.parametrize(
    ("zero_stage", "reductions", "gathers"),
    # Stage 2 reduces after each of 4 micro-batches; stage 3 also gathers before each of their passes, forward and
    # backward, and does all that layer by layer: 7 more messages than one.
    [
        (1, REDUCTION_S, GATHER_S),
        (2, 4 * REDUCTION_S, GATHER_S),
        (3, 4 * (REDUCTION_S + GATHER_S + 14 * 13e-6), 4 * (GATHER_S + 7 * 13e-6)),
    ],
)
def test_without_overlap_all_of_it_is_exposed(
    round_job: Callable[..., Job], zero_stage: int, reductions: float, gathers: float
) -> None:
    layout = Layout(data_parallel=8, zero_stage=zero_stage, zero_shard=8)
    found = exposed(round_job(), layout, forward_s=1.0, backward_s=2.0)
    assert found == pytest.approx((reductions, gathers))


OVERLAP = {"overlap_gradients": True, "overlap_parameters": True}


def test_overlap_leaves_the_first_and_the_last_of_the_layers(round_job: Callable[..., Job]) -> None:
    # Of 8 layers one bucket of the reduction and one of the gather have nothing to run beside.
    layout = Layout(data_parallel=8, zero_stage=1, zero_shard=8)
    found = exposed(round_job(stack=OVERLAP), layout, forward_s=1.0, backward_s=2.0)
    assert found == pytest.approx((REDUCTION_S / 8, GATHER_S / 8))


def test_overlap_hides_no_more_than_there_is_to_compute(round_job: Callable[..., Job]) -> None:
    # Seven of eight layers' 40 us forward and 80 us backward.
    layout = Layout(data_parallel=8, zero_stage=1, zero_shard=8)
    found = exposed(round_job(stack=OVERLAP), layout, forward_s=40e-6, backward_s=80e-6)
    assert found == pytest.approx((REDUCTION_S - 70e-6, GATHER_S - 35e-6))


def test_what_is_hidden_slows_what_it_hides_behind(round_job: Callable[..., Job]) -> None:
    job = round_job(stack=OVERLAP, cluster={"calibration": {"contention": 1.2}})
    layout = Layout(data_parallel=8, zero_stage=1, zero_shard=8)
    found = exposed(job, layout, forward_s=1.0, backward_s=2.0)
    share = 1 / 8 + 0.2 * 7 / 8
    assert found == pytest.approx((share * REDUCTION_S, share * GATHER_S))


def test_later_stages_finish_early_and_reduce_meanwhile(round_job: Callable[..., Job]) -> None:
    # In a pipeline the last of 4 stages ends its backward passes 3 passes before the first: nothing is left of its
    # reduction if a pass takes longer than a third of it. Two replicas of 4 stages lie on 8 devices, one tensor rank.
    layout = Layout(pipeline_parallel=4, data_parallel=2)
    reduce_s = 2 * 1 / 2 * 4e6 / NODE_BUS + 2e-6
    first, _ = exposed(round_job(), layout, forward_s=1e-6, backward_s=10e-6, stage=0)
    last, _ = exposed(round_job(), layout, forward_s=1e-6, backward_s=10e-6, stage=2)
    assert first == pytest.approx(reduce_s)
    assert last == pytest.approx(reduce_s - 3 * 10e-6)


@pytest.mark.parametrize(
    ("layout", "early_s"),
    [
        # Chunks of half the size end half as much earlier; zero-bubble schedules end everywhere at once.
        (Layout(pipeline_parallel=4, virtual_pipeline=2, schedule=Schedule.INTERLEAVED, data_parallel=2), 15e-6),
        (Layout(pipeline_parallel=4, schedule=Schedule.GPIPE, data_parallel=2), 30e-6),
        (Layout(pipeline_parallel=4, schedule=Schedule.ZERO_BUBBLE_H1, data_parallel=2), 0.0),
        (Layout(pipeline_parallel=4, schedule=Schedule.ZERO_BUBBLE_2P, data_parallel=2), 0.0),
    ],
    ids=lambda value: value.schedule.value if isinstance(value, Layout) else "",
)
def test_how_early_depends_on_the_schedule(round_job: Callable[..., Job], layout: Layout, early_s: float) -> None:
    reduce_s = 2 * 1 / 2 * 4e6 / NODE_BUS + 2e-6
    last, _ = exposed(round_job(), layout, forward_s=1e-6, backward_s=10e-6, stage=2)
    assert last == pytest.approx(reduce_s - early_s)


def test_zero_3_pays_for_its_many_messages(round_job: Callable[..., Job]) -> None:
    # At half the bandwidth, and 8 layers in 5 messages each, of 13 us, one of which is in the bulk already.
    job = round_job(stack={"gather_efficiency": 0.5, "gathers_per_layer": 5})
    layout = Layout(data_parallel=8, zero_stage=3, zero_shard=8)
    _, gathers = exposed(job, layout, forward_s=1.0, backward_s=2.0, total=1.0)
    assert gathers == pytest.approx(2 * GATHER_S + 39 * 13e-6)


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_a_pipeline_may_keep_what_it_gathered_for_the_step(round_job: Callable[..., Job], zero_stage: int) -> None:
    # 2 replicas of 4 stages: without resharding one reduction and one gather a step rather than one for each of 4
    # micro-batches.
    layout = Layout(pipeline_parallel=4, data_parallel=2, zero_stage=zero_stage, zero_shard=2)
    each, once = (
        exposed(round_job(stack={"reshard_in_pipeline": flag}), layout, forward_s=1e-9, backward_s=1e-9)
        for flag in (True, False)
    )
    assert each[0] >= 3.9 * once[0]
    assert (each[1] >= 3.9 * once[1]) == (zero_stage == 3)
    alone = Layout(data_parallel=8, zero_stage=zero_stage, zero_shard=8)
    assert exposed(round_job(stack={"reshard_in_pipeline": False}), alone, forward_s=1.0, backward_s=1.0) == exposed(
        round_job(), alone, forward_s=1.0, backward_s=1.0
    )


@pytest.mark.parametrize(("zero_stage", "shards"), [(0, 1), (1, 8), (2, 8), (3, 8)])
def test_the_optimizer_reads_and_writes_its_share(round_job: Callable[..., Job], zero_stage: int, shards: int) -> None:
    # Gradients: read for the norm, read and written to scale, read to update: 4 x 4 B. Moments and master weights:
    # read and written, 2 x 12 B. The 16-bit parameter: 2 B. At 500 GB/s.
    layouts = LayoutTable.of([Layout(data_parallel=8, zero_stage=zero_stage, zero_shard=8)])
    found = optimizer_s(round_job(), layouts, counted(MILLION))
    assert found == pytest.approx(np.array([[MILLION * (16 + 24 + 2) / shards / 500e9]]))


def test_experts_of_the_optimizer_are_sharded_over_their_copies(round_job: Callable[..., Job]) -> None:
    layouts = LayoutTable.of([Layout(data_parallel=8, expert_parallel=4, zero_stage=1, zero_shard=8)])
    found = optimizer_s(round_job(), layouts, counted(0.0, MILLION))
    assert found == pytest.approx(np.array([[MILLION * 42 / 2 / 500e9]]))


def test_a_tied_embedding_is_summed_between_the_ends(round_job: Callable[..., Job]) -> None:
    # 2 stages of 2 nodes each, 4 tensor ranks: 4 x 51200 x 1024 / 4 B between two devices of two nodes at 5 GB/s.
    layout = Layout(tensor_parallel=4, data_parallel=2, pipeline_parallel=2)
    tied, own = (round_job(model={"tied_embeddings": flag}) for flag in (True, False))
    expected = 2 * 1 / 2 * 4 * 51200 * 1024 / 4 / 5e9 + 20e-6
    assert tied_embedding_s(tied, LayoutTable.of([layout])) == pytest.approx([expected])
    assert tied_embedding_s(own, LayoutTable.of([layout])) == pytest.approx([0.0])
    assert tied_embedding_s(tied, LayoutTable.of([Layout(tensor_parallel=4)])) == pytest.approx([0.0])


def test_padding_is_never_the_slowest_stage(round_job: Callable[..., Job]) -> None:
    layouts = LayoutTable.of([Layout(pipeline_parallel=8), Layout()])
    stages = stage_table(round_job().model, layouts)
    seconds = np.array([[1.0, 3.0, 2.0], [1.0, 9.0, 9.0]])
    assert stages.slowest(seconds).tolist() == [1, 0]
