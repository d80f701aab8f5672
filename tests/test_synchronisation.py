"""What is exposed of reductions and gathers, the optimizer and tied embeddings, by hand on round machines."""

from collections.abc import Callable

import numpy as np
import pytest

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.stage_table import StageTable, stage_table
from meshwright.costmodels.state import StageParameters
from meshwright.costmodels.synchronisation import (
    StageWork,
    exposed_communication_s,
    optimizer_s,
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


def exposed(
    job: Job, layout: Layout, *, forward_s: float, backward_s: float, total: float = 4.0, stage: int = 0
) -> tuple[float, float]:
    """Give the exposed reductions and gathers of a stage with a million dense parameters."""
    layouts, stages = stages_of(job, layout)
    shape = stages.index.shape
    work = StageWork(forward_s=np.full(shape, forward_s), backward_s=np.full(shape, backward_s))
    found = exposed_communication_s(
        job,
        layouts,
        stages,
        StageParameters(dense=np.full(shape, MILLION), experts=np.zeros(shape)),
        work,
        beside=work,
        total=np.array([total]),
    )
    return float(found[0][0, stage]), float(found[1][0, stage])


OWN = 0.4 / 8 / 50e9
"""Seconds a byte to copy the own eighth of a message."""
STEPS_S = 16e-6
"""Of a ring of 8 in two nodes: six of 1 us and one of 10 us."""
REDUCTION_S = 4e6 * (7 / 8 / FABRIC_BUS + OWN) + STEPS_S
GATHER_S = 2e6 * (7 / 8 / FABRIC_BUS + OWN) + STEPS_S
LATER_S = 7 * STEPS_S
"""What 8 messages, one a layer, take longer than one of them all."""


@pytest.mark.parametrize(
    ("zero_stage", "reductions", "gathers"),
    # Stage 2 reduces after each of 4 micro-batches; stage 3 also gathers before each of their passes, forward and
    # backward, and does all that layer by layer.
    [
        (1, REDUCTION_S, GATHER_S),
        (2, 4 * REDUCTION_S, GATHER_S),
        (3, 4 * (REDUCTION_S + LATER_S), 8 * (GATHER_S + LATER_S)),
    ],
)
def test_without_overlap_all_of_it_is_exposed(
    round_job: Callable[..., Job], zero_stage: int, reductions: float, gathers: float
) -> None:
    layout = Layout(data_parallel=8, zero_stage=zero_stage, zero_shard=8)
    found = exposed(round_job(), layout, forward_s=1.0, backward_s=2.0)
    assert found == pytest.approx((reductions, gathers))


OVERLAP = {"overlap_gradients": True, "overlap_parameters": True}
LAYERED = Layout(data_parallel=8, zero_stage=3, zero_shard=8)


def test_overlap_leaves_the_first_and_the_last_of_the_layers(round_job: Callable[..., Job]) -> None:
    # Of 8 layers one bucket of each reduction and of each gather has nothing to run beside, in each of 4 micro-batches.
    found = exposed(round_job(stack=OVERLAP), LAYERED, forward_s=1.0, backward_s=2.0)
    assert found == pytest.approx((4 * (REDUCTION_S + LATER_S) / 8, 8 * (GATHER_S + LATER_S) / 8))


def test_overlap_hides_no_more_than_there_is_to_compute(round_job: Callable[..., Job]) -> None:
    # Seven of eight layers' 40 us forward and 80 us backward, of which the reductions and gathers get their share.
    found = exposed(round_job(stack=OVERLAP), LAYERED, forward_s=40e-6, backward_s=80e-6, total=1.0)
    reduction_s, gather_s = REDUCTION_S + LATER_S, GATHER_S + LATER_S
    backward_s = reduction_s + gather_s - 70e-6
    reductions = backward_s * reduction_s / (reduction_s + gather_s)
    assert found == pytest.approx((reductions, gather_s - 35e-6 + backward_s - reductions))


def test_what_is_hidden_slows_what_it_hides_behind(round_job: Callable[..., Job]) -> None:
    # Beside a second of communication compute does 1 / 1.2 s of its work.
    job = round_job(stack=OVERLAP, cluster={"calibration": {"contention": 1.2}})
    found = exposed(job, LAYERED, forward_s=1.0, backward_s=2.0, total=1.0)
    share = 1 / 8 + (1 - 1 / 1.2) * 7 / 8
    assert found == pytest.approx((share * (REDUCTION_S + LATER_S), share * 2 * (GATHER_S + LATER_S)))


def test_what_is_sent_once_a_step_runs_beside_one_micro_batch(round_job: Callable[..., Job]) -> None:
    # A million parameters don't fill a bucket, so that nothing of ZeRO-1's messages hides; a thousand million fill 8
    # buckets of 125 million, one a layer.
    job, layout = round_job(stack=OVERLAP), Layout(data_parallel=8, zero_stage=1, zero_shard=8)
    assert exposed(job, layout, forward_s=1.0, backward_s=2.0) == pytest.approx((REDUCTION_S, GATHER_S))
    layouts, stages = stages_of(job, layout)
    work = StageWork(forward_s=np.array([[1.0]]), backward_s=np.array([[2.0]]))
    reductions, gathers = exposed_communication_s(
        job, layouts, stages, counted(1000 * MILLION), work, beside=work, total=np.array([4.0])
    )
    assert reductions == pytest.approx(np.array([[4e9 / 8 * (7 / 8 / FABRIC_BUS + OWN) + STEPS_S]]))
    assert gathers == pytest.approx(np.array([[2e9 / 8 * (7 / 8 / FABRIC_BUS + OWN) + STEPS_S]]))


def test_later_stages_finish_early_and_reduce_meanwhile(round_job: Callable[..., Job]) -> None:
    # In a pipeline the last of 4 stages ends its backward passes 3 passes before the first: nothing is left of its
    # reduction if a pass takes longer than a third of it. Two replicas of 4 stages lie on 8 devices, one tensor rank.
    layout = Layout(pipeline_parallel=4, data_parallel=2)
    reduce_s = (2 * 1 / 2 + 0.4 / 2) * 4e6 / NODE_BUS + 2e-6
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
    reduce_s = (2 * 1 / 2 + 0.4 / 2) * 4e6 / NODE_BUS + 2e-6
    last, _ = exposed(round_job(), layout, forward_s=1e-6, backward_s=10e-6, stage=2)
    assert last == pytest.approx(reduce_s - early_s)


def test_zero_3_pays_for_its_many_messages(round_job: Callable[..., Job]) -> None:
    # At half the bandwidth and twice the latency, and 8 layers in 5 messages each, forward and backward.
    job = round_job(stack={"gather_efficiency": 0.5, "gathers_per_layer": 5})
    _, gathers = exposed(job, LAYERED, forward_s=1.0, backward_s=2.0, total=1.0)
    assert gathers == pytest.approx(2 * 2 * (GATHER_S + 39 * STEPS_S))


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
    expected = 4 * 51200 * 1024 / 4 * (2 * 1 / 2 / 5e9 + 0.4 / 2 / 50e9) + 20e-6
    assert tied_embedding_s(tied, LayoutTable.of([layout])) == pytest.approx([expected])
    assert tied_embedding_s(own, LayoutTable.of([layout])) == pytest.approx([0.0])
    assert tied_embedding_s(tied, LayoutTable.of([Layout(tensor_parallel=4)])) == pytest.approx([0.0])


@pytest.mark.parametrize(("stages", "bus_bytes_per_s"), [(2, 50e9), (4, 50e9), (5, 5e9), (8, 5e9)])
def test_ends_of_a_pipeline_are_in_a_node_where_all_of_it_is(
    stages: int, bus_bytes_per_s: float, round_job: Callable[..., Job]
) -> None:
    """Stages of one device are neighbours, with data outermost: 2 or 4 lie in a node of 4."""
    job = round_job(cluster={"devices": stages * 4}, model={"tied_embeddings": True})
    layout = Layout(pipeline_parallel=stages, data_parallel=4, axis_order=AxisOrder.DATA_OUTERMOST)
    expected = 4 * 51200 * 1024 * (2 * 1 / 2 / bus_bytes_per_s + 0.4 / 2 / 50e9)
    assert tied_embedding_s(job, LayoutTable.of([layout])) == pytest.approx([expected], rel=0.01)


def test_padding_is_never_the_slowest_stage(round_job: Callable[..., Job]) -> None:
    layouts = LayoutTable.of([Layout(pipeline_parallel=8), Layout()])
    stages = stage_table(round_job().model, layouts)
    seconds = np.array([[1.0, 3.0, 2.0], [1.0, 9.0, 9.0]])
    assert stages.slowest(seconds).tolist() == [1, 0]
