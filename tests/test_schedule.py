"""Laws of schedules with one chunk a stage, and of interleaving, against an event simulation of their orders."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation.pipelines import Seconds, law_s, most_held, proportional, ran

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.schedule import held_micro_batches, micro_batches
from meshwright.planner.verification.pipeline.orders import gpipe, interleaved, one_chunk
from meshwright.planner.verification.pipeline.passes import Orders

SIZES = st.lists(st.floats(0.7, 1.3), min_size=2, max_size=8)


def orders_of(schedule: Schedule, stages: int, count: int, *, chunks: int = 1) -> Orders:
    return {
        Schedule.GPIPE: lambda: gpipe(stages, count),
        Schedule.ONE_F_ONE_B: lambda: one_chunk(stages, count),
        Schedule.INTERLEAVED: lambda: interleaved(stages, count, chunks=chunks),
        Schedule.ZERO_BUBBLE_H1: lambda: one_chunk(stages, count, splits=True),
        Schedule.ZERO_BUBBLE_2P: lambda: one_chunk(stages, count, slack=2, splits=True),
    }[schedule]()


def ratio(schedule: Schedule, orders: Orders, seconds: Seconds, count: int, *, together: bool = True) -> float:
    """Give what the law says over what the simulation takes."""
    run = ran(orders, seconds)
    expected_s = run.step_s if together else run.longest_stage_s
    return law_s(schedule, orders, seconds, count, together=together) / expected_s


PLAIN = [(stages, count) for stages in (2, 4, 8) for count in (1, 2, 4, 8, 32)]
FILLED = [(stages, chunks, stages * blocks) for stages in (2, 4, 8) for chunks in (2, 3, 4) for blocks in (1, 2, 4)]


@pytest.mark.parametrize("schedule", [Schedule.GPIPE, Schedule.ONE_F_ONE_B])
@pytest.mark.parametrize(("stages", "count"), PLAIN)
def test_equal_stages_wait_one_micro_batch_a_stage(schedule: Schedule, stages: int, count: int) -> None:
    # arXiv 2104.04473, section 2.2: (P - 1) (f + b).
    orders, seconds = orders_of(schedule, stages, count), proportional([1.0] * stages, backward=2.0)
    assert ran(orders, seconds).step_s == pytest.approx(3.0 * (count + stages - 1))
    assert law_s(schedule, orders, seconds, count) == pytest.approx(3.0 * (count + stages - 1))


@pytest.mark.parametrize(("stages", "chunks", "count"), FILLED)
def test_interleaving_divides_the_bubble_by_the_chunks(stages: int, chunks: int, count: int) -> None:
    seconds = proportional([1.0 / chunks] * (stages * chunks), backward=2.0)
    orders = interleaved(stages, count, chunks=chunks)
    assert ran(orders, seconds).step_s == pytest.approx(3.0 * (count + (stages - 1) / chunks))
    assert law_s(Schedule.INTERLEAVED, orders, seconds, count) == pytest.approx(3.0 * (count + (stages - 1) / chunks))


@pytest.mark.parametrize(("backward", "weight"), [(1.0, 1.0), (1.2, 0.8), (1.5, 0.5)])
@pytest.mark.parametrize(("stages", "count"), [(2, 4), (4, 8), (4, 16), (8, 32)])
def test_zero_bubble_schedules_wait_what_their_paper_says(
    backward: float, weight: float, stages: int, count: int
) -> None:
    # arXiv 2401.10241, table 1: (P - 1) (f + b - w) and (P - 1) (f + b - 2 w).
    seconds = proportional([1.0] * stages, backward=backward, weight=weight)
    for schedule, gradients in ((Schedule.ZERO_BUBBLE_H1, 1), (Schedule.ZERO_BUBBLE_2P, 2)):
        orders = orders_of(schedule, stages, count)
        expected = count * (1.0 + backward + weight) + (stages - 1) * (1.0 + backward - gradients * weight)
        assert ran(orders, seconds).longest_stage_s == pytest.approx(expected)
        assert law_s(schedule, orders, seconds, count, together=False) == pytest.approx(expected)


def test_stages_that_wait_for_one_another_lose_what_zb_2p_gains() -> None:
    # Four equal stages start a forward pass apart, and all of them are busy from then on: 8 x 3 and 3 x 1 more.
    orders, seconds = one_chunk(4, 8, slack=2, splits=True), proportional([1.0] * 4, backward=1.0, weight=1.0)
    assert law_s(Schedule.ZERO_BUBBLE_2P, orders, seconds, 8, together=False) == pytest.approx(24.0)
    assert law_s(Schedule.ZERO_BUBBLE_2P, orders, seconds, 8) == pytest.approx(27.0)


@given(forward=SIZES, data=st.data(), count=st.integers(1, 24))
@settings(deadline=None)
def test_gpipe_is_exact_for_any_stages(forward: list[float], data: st.DataObject, count: int) -> None:
    backward = data.draw(st.lists(st.floats(0.7, 3.0), min_size=len(forward), max_size=len(forward)))
    seconds = {"F": forward, "B": backward, "W": [0.0] * len(forward)}
    assert ratio(Schedule.GPIPE, gpipe(len(forward), count), seconds, count) == pytest.approx(1.0)


@given(sizes=SIZES, backward=st.floats(1.0, 3.0), share=st.floats(1.01, 4.0))
@settings(deadline=None)
def test_1f1b_is_exact_where_micro_batches_outnumber_stages(sizes: list[float], backward: float, share: float) -> None:
    count = int(share * len(sizes)) + 1
    seconds = proportional(sizes, backward=backward)
    found = ratio(Schedule.ONE_F_ONE_B, one_chunk(len(sizes), count), seconds, count)
    assert found == pytest.approx(1.0, abs=0.01)


@given(
    sizes=SIZES,
    backward=st.floats(1.0, 1.6),
    weight=st.floats(0.5, 1.0),
    share=st.floats(0.0, 2.0),
    together=st.booleans(),
)
@settings(deadline=None)
def test_zero_bubble_schedules_are_exact_with_enough_micro_batches(
    sizes: list[float], backward: float, weight: float, share: float, together: bool
) -> None:
    seconds = proportional(sizes, backward=backward, weight=weight)
    for schedule, least in ((Schedule.ZERO_BUBBLE_H1, 1.5), (Schedule.ZERO_BUBBLE_2P, 2.5)):
        count = int(np.ceil((least + share) * len(sizes)))
        orders = orders_of(schedule, len(sizes), count)
        assert ratio(schedule, orders, seconds, count, together=together) == pytest.approx(1.0, abs=0.01)


@given(
    stages=st.integers(3, 8),
    chunks=st.integers(2, 5),
    blocks=st.integers(2, 4),
    ends=st.tuples(st.floats(0.5, 1.1), st.floats(0.5, 3.0)),
    backward=st.floats(1.5, 2.6),
)
@settings(deadline=None)
def test_interleaving_is_exact_where_only_the_ends_differ(
    stages: int, chunks: int, blocks: int, ends: tuple[float, float], backward: float
) -> None:
    count, sizes = stages * blocks, [ends[0], *[1.0] * (stages * chunks - 2), ends[1]]
    seconds = proportional(sizes, backward=backward)
    orders = interleaved(stages, count, chunks=chunks)
    assert ratio(Schedule.INTERLEAVED, orders, seconds, count) == pytest.approx(1.0, abs=0.01)


UNEVEN = [sizes for sizes in product((0.7, 1.0, 1.3), repeat=4) if len(set(sizes)) > 1]


@pytest.mark.parametrize(
    ("schedule", "chunks", "count", "low"),
    [
        (Schedule.ONE_F_ONE_B, 1, 3, 0.99),
        (Schedule.ZERO_BUBBLE_H1, 1, 4, 0.93),
        (Schedule.ZERO_BUBBLE_2P, 1, 8, 0.97),
        (Schedule.INTERLEAVED, 2, 4, 0.985),
        (Schedule.INTERLEAVED, 2, 16, 0.985),
    ],
)
def test_elsewhere_the_longest_chain_is_short_by_a_measured_tolerance(
    schedule: Schedule, chunks: int, count: int, low: float
) -> None:
    orders = orders_of(schedule, 4, count, chunks=chunks)
    weight = 0.8 if "zb" in schedule else 0.0
    ratios = [
        ratio(schedule, orders, proportional(sizes * chunks, backward=1.2, weight=weight), count) for sizes in UNEVEN
    ]
    assert low <= min(ratios) <= max(ratios) <= 1.0 + 1e-9


@pytest.mark.parametrize(
    ("sizes", "low", "high"),
    [
        ((1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1.9), 0.99, 1.01),
        ((2, 2, 2, 3, 3, 3, 3, 3, 3, 2, 2, 2.5), 0.99, 1.01),
        ((1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1.4), 0.95, 1.02),
        ((1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1.7), 0.95, 1.02),
    ],
)
@pytest.mark.parametrize("count", [8, 16, 32])
def test_interleaved_chunks_that_differ_by_a_layer(
    sizes: tuple[float, ...], low: float, high: float, count: int
) -> None:
    # The last two cost up to 13 % more than the busiest stage's chain: each round waits for its slowest chunk.
    orders = interleaved(4, count, chunks=3)
    assert low <= ratio(Schedule.INTERLEAVED, orders, proportional(sizes, backward=2.0), count) <= high


@pytest.mark.parametrize(
    ("schedule", "chunks", "apart_s"),
    [
        (Schedule.GPIPE, 1, 2.0),
        (Schedule.ONE_F_ONE_B, 1, 2.0),
        (Schedule.INTERLEAVED, 2, 1.0),
        (Schedule.INTERLEAVED, 4, 0.5),
        (Schedule.ZERO_BUBBLE_H1, 1, 0.0),
    ],
)
def test_stages_end_a_backward_pass_of_a_chunk_apart(schedule: Schedule, chunks: int, apart_s: float) -> None:
    # What costmodels/synchronisation.py takes for granted when it hides the reductions of later stages.
    backward, weight = (1.0, 1.0) if schedule is Schedule.ZERO_BUBBLE_H1 else (2.0, 0.0)
    seconds = proportional([1.0 / chunks] * (4 * chunks), backward=backward, weight=weight)
    ends = ran(orders_of(schedule, 4, 8, chunks=chunks), seconds).ended_s
    assert [ends[0] - end for end in ends] == pytest.approx([index * apart_s for index in range(4)])


def held(schedule: Schedule, *, stages: int, chunks: int, count: int) -> list[float]:
    layouts = LayoutTable.of([Layout(pipeline_parallel=stages, virtual_pipeline=chunks, schedule=schedule)])
    counted = held_micro_batches(layouts, np.arange(stages)[np.newaxis, :], total=np.array([float(count)]))
    return [float(value) for value in counted[0]]


@pytest.mark.parametrize("schedule", [Schedule.GPIPE, Schedule.ONE_F_ONE_B])
@pytest.mark.parametrize(("stages", "count"), PLAIN)
def test_plain_schedules_hold_what_the_simulation_holds(schedule: Schedule, stages: int, count: int) -> None:
    orders = orders_of(schedule, stages, count)
    assert held(schedule, stages=stages, chunks=1, count=count) == [most_held(order, until="B") for order in orders]


@pytest.mark.parametrize(("stages", "chunks", "count"), FILLED)
def test_interleaved_schedules_hold_what_the_simulation_holds(stages: int, chunks: int, count: int) -> None:
    orders = interleaved(stages, count, chunks=chunks)
    assert held(Schedule.INTERLEAVED, stages=stages, chunks=chunks, count=count) == pytest.approx(
        [most_held(order, until="B") / chunks for order in orders]
    )


@pytest.mark.parametrize("count", [4, 8, 16])
def test_zero_bubble_2p_holds_up_to_twice_as_many(count: int) -> None:
    orders = orders_of(Schedule.ZERO_BUBBLE_2P, 4, count)
    expected = [most_held(order, until="B") for order in orders]
    assert held(Schedule.ZERO_BUBBLE_2P, stages=4, chunks=1, count=count) == expected
    assert expected == [min(count, most) for most in (7, 5, 3, 1)]


def test_a_shared_vocabulary_holds_one_micro_batch_more() -> None:
    layout = Layout(pipeline_parallel=4, vocabulary_parallel=True)
    counted = held_micro_batches(LayoutTable.of([layout]), np.arange(4)[np.newaxis, :], total=np.array([4.0]))
    assert counted[0].tolist() == [4, 4, 3, 2]


def test_micro_batches_split_the_batch_over_replicas() -> None:
    layouts = LayoutTable.of([Layout(data_parallel=4, micro_batch=2), Layout(tensor_parallel=4)])
    assert micro_batches(64, layouts) == pytest.approx([8.0, 64.0])
