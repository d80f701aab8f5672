"""V-Half, V-Min, ZBV, DualPipe and DualPipeV against an event simulation of their papers' orders."""

from functools import cache
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation.pipelines import law_s, most_held, proportional, ran

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.schedule import held_micro_batches, paired_passes
from meshwright.planner.verification.pipeline.dual_pipe import dual_pipe, dual_pipe_v
from meshwright.planner.verification.pipeline.passes import Orders
from meshwright.planner.verification.pipeline.v_orders import v_order
from meshwright.planner.verification.pipeline.zero_bubble_v import zero_bubble_v

FOLDED = (Schedule.V_HALF, Schedule.V_MIN, Schedule.ZERO_BUBBLE_V, Schedule.DUAL_PIPE_V)
BACKWARD, WEIGHT = st.floats(1.0, 1.8), st.floats(0.4, 1.0)


@cache
def orders_of(schedule: Schedule, stages: int, count: int) -> Orders:
    if schedule in (Schedule.V_HALF, Schedule.V_MIN):
        return v_order(stages, count, minimal=schedule is Schedule.V_MIN)
    make = {
        Schedule.ZERO_BUBBLE_V: zero_bubble_v,
        Schedule.DUAL_PIPE: dual_pipe,
        Schedule.DUAL_PIPE_V: dual_pipe_v,
    }[schedule]
    return make(stages, count)


def ratio(schedule: Schedule, stages: int, count: int, sizes: list[float], *, backward: float, weight: float) -> float:
    """Give what the law says over what the simulation takes."""
    orders, seconds = orders_of(schedule, stages, count), proportional(sizes, backward=backward, weight=weight)
    return law_s(schedule, orders, seconds, count) / ran(orders, seconds).step_s


def chunks_of(schedule: Schedule, stages: int) -> int:
    return stages if schedule is Schedule.DUAL_PIPE else 2 * stages


def layout_of(schedule: Schedule, stages: int) -> Layout:
    return Layout(pipeline_parallel=stages, virtual_pipeline=2 if schedule in FOLDED else 1, schedule=schedule)


@given(stages=st.integers(2, 8), blocks=st.integers(2, 4), backward=BACKWARD, weight=WEIGHT)
@settings(deadline=None)
def test_zbv_and_dualpipe_are_exact_for_equal_chunks(stages: int, blocks: int, backward: float, weight: float) -> None:
    for schedule in (Schedule.ZERO_BUBBLE_V, Schedule.DUAL_PIPE_V, Schedule.DUAL_PIPE):
        even = 2 * stages if schedule is Schedule.DUAL_PIPE else stages
        sizes = [1.0] * chunks_of(schedule, even)
        found = ratio(schedule, even, even * blocks, sizes, backward=backward, weight=weight)
        assert found == pytest.approx(1.0)


@given(
    stages=st.integers(3, 9),
    blocks=st.integers(2, 3),
    schedule=st.sampled_from([Schedule.V_HALF, Schedule.V_MIN]),
    backward=BACKWARD,
    weight=WEIGHT,
)
@settings(deadline=None)
def test_v_schedules_are_exact_for_equal_chunks(
    stages: int, blocks: int, schedule: Schedule, backward: float, weight: float
) -> None:
    tolerance = 0.01 if schedule is Schedule.V_HALF and stages > 3 else 0.02
    found = ratio(schedule, stages, stages * blocks, [1.0] * (2 * stages), backward=backward, weight=weight)
    assert found == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize(("schedule", "high"), [(Schedule.V_HALF, 1.07), (Schedule.V_MIN, 1.25)])
def test_two_stages_are_within_a_measured_tolerance(schedule: Schedule, high: float) -> None:
    ratios = [
        ratio(schedule, 2, count, [1.0] * 4, backward=backward, weight=weight)
        for count in (4, 6, 16)
        for backward, weight in ((1.0, 1.0), (1.2, 0.8), (1.8, 0.4))
    ]
    assert 2.0 - high <= min(ratios) <= max(ratios) <= high


@pytest.mark.parametrize("schedule", [*FOLDED, Schedule.DUAL_PIPE])
def test_unequal_chunks_are_within_a_measured_tolerance(schedule: Schedule) -> None:
    random = Random(schedule)
    ratios = []
    for _ in range(40):
        stages = random.choice([4, 6] if schedule is Schedule.DUAL_PIPE else [3, 4, 6])
        sizes = [random.uniform(0.7, 1.3) for _ in range(chunks_of(schedule, stages))]
        if random.random() < 0.5:
            sizes = [1.0 + random.uniform(-0.5, 0.3), *[1.0] * (len(sizes) - 2), 1.0 + random.uniform(-0.5, 2.0)]
        backward, weight = random.uniform(1.0, 1.6), random.uniform(0.5, 1.0)
        count = stages * random.choice([2, 3, 4])
        ratios.append(ratio(schedule, stages, count, sizes, backward=backward, weight=weight))
    assert 0.88 <= min(ratios) <= max(ratios) <= 1.12


def test_zbv_has_no_bubble_where_passes_are_equal_and_stages_go_on() -> None:
    # arXiv 2401.10241, table 6; waiting for one another costs a backward pass a stage.
    orders, seconds = zero_bubble_v(4, 16), proportional([1.0] * 8, backward=1.0, weight=1.0)
    assert ran(orders, seconds).longest_stage_s == pytest.approx(16 * 6.0)
    assert law_s(Schedule.ZERO_BUBBLE_V, orders, seconds, 16, together=False) == pytest.approx(16 * 6.0)
    assert law_s(Schedule.ZERO_BUBBLE_V, orders, seconds, 16) == pytest.approx(16 * 6.0 + 3.0)


def test_v_schedules_trade_the_bubble_of_1f1b_for_memory() -> None:
    # arXiv 2405.15362: half the memory at about half the bubble of 1F1B, a third at about two thirds of it.
    of_1f1b = 7 * 6.0
    sizes = proportional([1.0] * 16, backward=1.0, weight=1.0)
    bubbles = [
        law_s(schedule, orders_of(schedule, 8, 32), sizes, 32) - 32 * 6.0
        for schedule in (Schedule.V_HALF, Schedule.V_MIN)
    ]
    assert bubbles == pytest.approx([17.0, 27.0])
    assert [bubble / of_1f1b for bubble in bubbles] == pytest.approx([1 / 2, 2 / 3], abs=0.1)


def test_longer_backward_passes_repeat_a_bubble_under_v_min() -> None:
    # A micro-batch takes six backward passes then, though a stage has two of them: 6 x 1.5 against 2 x (1 + 1.5 + 0.5).
    seconds = proportional([1.0] * 8, backward=1.5, weight=0.5)
    steps = [law_s(Schedule.V_MIN, orders_of(Schedule.V_MIN, 4, count), seconds, count) for count in (16, 32)]
    assert (steps[1] - steps[0]) / 16 == pytest.approx(9.0)


def test_dualpipe_waits_about_what_its_authors_say() -> None:
    # n (F&B + B - 3 W) with F = 1, B = 2.0, W = 0.8 and n = 3 is 3 x 2.6; their order waits one forward pass less where
    # backward passes by data (1.2) are longer than forward ones, as far as that pays.
    orders, seconds = dual_pipe(8, 32), proportional([1.0] * 8, backward=1.2, weight=0.8)
    waits = law_s(Schedule.DUAL_PIPE, orders, seconds, 32) - 32 * 3.0
    assert waits == pytest.approx(max(2 * 1 + 6 * 1.2, 6 * 1 + 3 * 1.2) - 3 * 0.8)
    assert 3 * 2.6 - 1.0 <= waits <= 3 * 2.6


@pytest.mark.parametrize(("schedule", "stages"), [(Schedule.DUAL_PIPE, 8), (Schedule.DUAL_PIPE_V, 4)])
@pytest.mark.parametrize("blocks", [2, 4])
def test_what_pairs_hide_shortens_the_step(schedule: Schedule, stages: int, blocks: int) -> None:
    count = blocks * stages
    orders = orders_of(schedule, stages, count)
    seconds = proportional([1.0] * 8, backward=1.2, weight=0.8)
    hidden_s = ran(orders, seconds).step_s - ran(orders, seconds, hidden_s=0.3).step_s
    pairs = paired_passes(LayoutTable.of([layout_of(schedule, stages)]), np.array([float(count)]))
    assert hidden_s == pytest.approx(0.3 * float(pairs[0]))


@pytest.mark.parametrize("schedule", [*FOLDED, Schedule.DUAL_PIPE])
@pytest.mark.parametrize("stages", [2, 4, 6, 8, 10])
def test_stages_hold_what_the_simulation_holds(schedule: Schedule, stages: int) -> None:
    count = 3 * stages
    table = LayoutTable.of([layout_of(schedule, stages)])
    counted = held_micro_batches(table, np.arange(stages)[np.newaxis, :], total=np.array([float(count)]))[0]
    until = "B" if schedule in (Schedule.DUAL_PIPE, Schedule.DUAL_PIPE_V) else "W"
    found = [most_held(order, until=until) / 2 for order in orders_of(schedule, stages, count)]
    assert max(found) == counted.max()
    assert all(few <= most for few, most in zip(found, counted, strict=True))
