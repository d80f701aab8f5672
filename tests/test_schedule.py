"""The closed forms of pipeline schedules against an event simulation that shares no code with them.

The simulation knows only in which order each stage runs its passes, and that a pass waits for the one that feeds it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, product

import numpy as np
import pytest

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.schedule import bubble_s, held_micro_batches, micro_batches

Pass = tuple[str, int, int]
"""What ("F", "B", "W"), which micro-batch, which chunk of the stage."""


@dataclass(frozen=True, slots=True)
class Stage:
    forward_s: float
    backward_s: float
    weight_s: float = 0.0

    @property
    def total_s(self) -> float:
        return self.forward_s + self.backward_s + self.weight_s


def gpipe_order(count: int) -> list[Pass]:
    return [("F", batch, 0) for batch in range(count)] + [("B", batch, 0) for batch in range(count)]


def one_f_one_b_order(stage: int, *, stages: int, count: int) -> list[Pass]:
    warm = min(stages - 1 - stage, count)
    order: list[Pass] = [("F", batch, 0) for batch in range(warm)]
    for batch in range(count - warm):
        order += [("F", warm + batch, 0), ("B", batch, 0)]
    return order + [("B", batch, 0) for batch in range(count - warm, count)]


def interleaved_order(stage: int, *, stages: int, chunks: int, count: int) -> list[Pass]:
    """Give Megatron's order: micro-batches go through chunk after chunk in blocks as long as the pipeline."""

    def nth(number: int, *, backward: bool) -> tuple[int, int]:
        block, place = divmod(number, stages * chunks)
        chunk, batch = divmod(place, stages)
        return block * stages + batch, chunks - 1 - chunk if backward else chunk

    passes = count * chunks
    warm = min(passes, 2 * (stages - 1 - stage) + (chunks - 1) * stages)
    order: list[Pass] = [("F", *nth(number, backward=False)) for number in range(warm)]
    for number in range(passes - warm):
        order += [("F", *nth(warm + number, backward=False)), ("B", *nth(number, backward=True))]
    return order + [("B", *nth(number, backward=True)) for number in range(passes - warm, passes)]


def zero_bubble_h1_order(stage: int, *, stages: int, count: int) -> list[Pass]:
    """Give 1F1B with weight gradients put off by as many micro-batches as the stage is deep (Qi et al., figure 2)."""
    order: list[Pass] = []
    done = 0
    for what in one_f_one_b_order(stage, stages=stages, count=count):
        order.append(what)
        if what[0] == "B" and what[1] >= stage:
            order.append(("W", done, 0))
            done += 1
    return order + [("W", batch, 0) for batch in range(done, count)]


def stage_ends(stages: Sequence[Stage], orders: Sequence[Sequence[Pass]], *, chunks: int = 1) -> list[float]:
    """Run every stage's passes in its order, each as soon as what feeds it is there; give when each stage is done."""
    ended: dict[tuple[str, int, int], float] = {}
    free = [0.0] * len(stages)
    todo: list[Iterator[Pass]] = [iter(order) for order in orders]
    following = [next(rest, None) for rest in todo]
    last_chunk = len(stages) * chunks - 1
    while any(following):
        progressed = False
        for index, stage in enumerate(stages):
            while (what := following[index]) is not None:
                kind, batch, chunk = what
                place = chunk * len(stages) + index
                feeds = {
                    "F": [("F", batch, place - 1)] if place else [],
                    "B": [("B", batch, place + 1)] if place < last_chunk else [("F", batch, place)],
                    "W": [("B", batch, place)],
                }[kind]
                if not all(feed in ended for feed in feeds):
                    break
                seconds = {"F": stage.forward_s, "B": stage.backward_s, "W": stage.weight_s}[kind] / chunks
                start = max([free[index], *(ended[feed] for feed in feeds)])
                free[index] = ended[kind, batch, place] = start + seconds
                following[index] = next(todo[index], None)
                progressed = True
        assert progressed, "the order deadlocks"
    return free


def most_held(order: Sequence[Pass]) -> int:
    """Count the most forward passes whose backward pass hasn't run."""
    return max(accumulate({"F": 1, "B": -1, "W": 0}[kind] for kind, _, _ in order))


def order_of(schedule: Schedule, stage: int, *, stages: int, chunks: int, count: int) -> list[Pass]:
    if schedule is Schedule.GPIPE:
        return gpipe_order(count)
    if schedule is Schedule.INTERLEAVED:
        return interleaved_order(stage, stages=stages, chunks=chunks, count=count)
    if schedule is Schedule.ZERO_BUBBLE_H1:
        return zero_bubble_h1_order(stage, stages=stages, count=count)
    return one_f_one_b_order(stage, stages=stages, count=count)


def orders_of(schedule: Schedule, *, stages: int, chunks: int, count: int) -> list[list[Pass]]:
    return [order_of(schedule, stage, stages=stages, chunks=chunks, count=count) for stage in range(stages)]


def simulated_s(schedule: Schedule, stages: Sequence[Stage], *, chunks: int = 1, count: int) -> float:
    orders = orders_of(schedule, stages=len(stages), chunks=chunks, count=count)
    return max(stage_ends(stages, orders, chunks=chunks))


def closed_form_s(schedule: Schedule, stages: Sequence[Stage], *, chunks: int = 1, count: int) -> float:
    """Give M times the slowest stage, and the bubble, each stage as one of its own kind."""
    layouts = LayoutTable.of([Layout(pipeline_parallel=len(stages), virtual_pipeline=chunks, schedule=schedule)])
    total_s = np.array([[stage.total_s for stage in stages]])
    forward_s = np.array([[stage.forward_s for stage in stages]])
    waiting_s = bubble_s(
        layouts,
        forward_s=forward_s,
        backward_s=total_s - forward_s,
        weight_gradient_s=np.array([[stage.weight_s for stage in stages]]),
        multiplicity=np.ones((1, len(stages)), dtype=np.int64),
        total=np.array([float(count)]),
    )
    return float(count * total_s.max() + waiting_s[0])


PLAIN = [(stages, count) for stages in (1, 2, 4, 8) for count in (1, 2, 4, 8, 32)]
FILLED = [(stages, chunks, stages * blocks) for stages in (2, 4, 8) for chunks in (2, 3, 4) for blocks in (1, 2, 4)]


@pytest.mark.parametrize("schedule", [Schedule.GPIPE, Schedule.ONE_F_ONE_B])
@pytest.mark.parametrize(("stages", "count"), PLAIN)
def test_plain_schedules_take_what_the_simulation_takes(schedule: Schedule, stages: int, count: int) -> None:
    pipeline = [Stage(1.0, 2.0)] * stages
    expected = simulated_s(schedule, pipeline, count=count)
    assert expected == pytest.approx(3.0 * (count + stages - 1))
    assert closed_form_s(schedule, pipeline, count=count) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("stages", "chunks", "count"), FILLED)
def test_interleaved_schedules_take_what_the_simulation_takes(stages: int, chunks: int, count: int) -> None:
    pipeline = [Stage(1.0, 2.0)] * stages
    expected = simulated_s(Schedule.INTERLEAVED, pipeline, chunks=chunks, count=count)
    assert closed_form_s(Schedule.INTERLEAVED, pipeline, chunks=chunks, count=count) == pytest.approx(
        expected, rel=0.01
    )


@pytest.mark.parametrize("stage", [Stage(1.0, 1.0, 1.0), Stage(1.0, 1.2, 0.8), Stage(1.0, 1.5, 0.5)])
@pytest.mark.parametrize(("stages", "count"), [(2, 4), (4, 4), (4, 16), (8, 8), (8, 32)])
def test_zero_bubble_h1_takes_what_the_simulation_takes(stage: Stage, stages: int, count: int) -> None:
    pipeline = [stage] * stages
    expected = simulated_s(Schedule.ZERO_BUBBLE_H1, pipeline, count=count)
    assert closed_form_s(Schedule.ZERO_BUBBLE_H1, pipeline, count=count) == pytest.approx(expected, rel=0.01)


def test_zero_bubble_2p_leaves_no_bubble_where_passes_are_equal_and_never_a_negative_one() -> None:
    # f + b - 2 w: 1 + 1 - 2 = 0; 1 + 1.5 - 2 x 0.5 = 1.5, for each of 3 other stages; 1 + 1 - 2 x 1.5 < 0.
    bubbles = [
        closed_form_s(Schedule.ZERO_BUBBLE_2P, [stage] * 4, count=8) - 8 * stage.total_s
        for stage in (Stage(1.0, 1.0, 1.0), Stage(1.0, 1.5, 0.5), Stage(1.0, 1.0, 1.5))
    ]
    assert bubbles == pytest.approx([0.0, 4.5, 0.0])


UNEVEN = [sizes for sizes in product((0.7, 1.0, 1.3), repeat=4) if len(set(sizes)) > 1]


def uneven_ratios(schedule: Schedule, *, chunks: int, count: int) -> list[float]:
    """Give the simulated over the predicted time of all pipelines of four stages that aren't equal."""
    pipelines = [[Stage(size, 2.0 * size) for size in sizes] for sizes in UNEVEN]
    return [
        simulated_s(schedule, pipeline, chunks=chunks, count=count)
        / closed_form_s(schedule, pipeline, chunks=chunks, count=count)
        for pipeline in pipelines
    ]


def test_unequal_stages_are_exact_for_gpipe() -> None:
    assert uneven_ratios(Schedule.GPIPE, chunks=1, count=8) == pytest.approx([1.0] * len(UNEVEN))


@pytest.mark.parametrize(("count", "tolerance"), [(4, 0.18), (8, 0.12), (32, 0.04)])
def test_unequal_stages_of_an_interleaved_schedule_are_within_a_measured_tolerance(
    count: int, tolerance: float
) -> None:
    ratios = uneven_ratios(Schedule.INTERLEAVED, chunks=2, count=count)
    assert 1.0 - tolerance <= min(ratios) <= max(ratios) <= 1.03


@pytest.mark.parametrize("count", [4, 8, 32])
def test_unequal_stages_of_1f1b_are_within_three_per_cent(count: int) -> None:
    ratios = uneven_ratios(Schedule.ONE_F_ONE_B, chunks=1, count=count)
    assert 0.97 <= min(ratios) <= max(ratios) <= 1.03


@pytest.mark.parametrize("ends", [(0.7, 0.7), (1.0, 0.8), (1.3, 1.0), (0.9, 1.4)])
@pytest.mark.parametrize("count", [5, 8, 32])
def test_unequal_ends_of_1f1b_are_exact(ends: tuple[float, float], count: int) -> None:
    sizes = (ends[0], 1.0, 1.0, 1.0, ends[1])
    pipeline = [Stage(size, 2.0 * size) for size in sizes]
    expected = simulated_s(Schedule.ONE_F_ONE_B, pipeline, count=count)
    assert closed_form_s(Schedule.ONE_F_ONE_B, pipeline, count=count) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("schedule", [Schedule.ONE_F_ONE_B, Schedule.INTERLEAVED])
def test_a_slow_last_stage_is_exact(schedule: Schedule) -> None:
    pipeline = [Stage(1.0, 2.0)] * 3 + [Stage(1.4, 2.8)]
    chunks = 2 if schedule is Schedule.INTERLEAVED else 1
    expected = simulated_s(schedule, pipeline, chunks=chunks, count=8)
    assert closed_form_s(schedule, pipeline, chunks=chunks, count=8) == pytest.approx(expected)


def test_stages_of_one_kind_count_as_often_as_there_are_of_them() -> None:
    layouts = LayoutTable.of([Layout(pipeline_parallel=8)])
    bubble = bubble_s(
        layouts,
        forward_s=np.array([[1.0, 2.0, 2.0]]),
        backward_s=np.array([[2.0, 3.0, 2.0]]),
        weight_gradient_s=np.zeros((1, 3)),
        multiplicity=np.array([[1, 6, 1]]),
        total=np.array([32.0]),
    )
    # Behind the last of the six there is one of 4 s, and one micro-batch of slack: 4 - 2 forward, 4 - 3 backward.
    assert bubble == pytest.approx([3.0 + 5 * 5.0 + 2.0 + 1.0])


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
    stage = Stage(1.0, 1.0, 1.0) if schedule is Schedule.ZERO_BUBBLE_H1 else Stage(1.0, 2.0)
    orders = orders_of(schedule, stages=4, chunks=chunks, count=8)
    ends = stage_ends([stage] * 4, orders, chunks=chunks)
    assert [ends[0] - end for end in ends] == pytest.approx([index * apart_s for index in range(4)])


def held(schedule: Schedule, *, stages: int, chunks: int, count: int) -> list[float]:
    layouts = LayoutTable.of([Layout(pipeline_parallel=stages, virtual_pipeline=chunks, schedule=schedule)])
    counted = held_micro_batches(layouts, np.arange(stages)[np.newaxis, :], total=np.array([float(count)]))
    return [float(value) for value in counted[0]]


@pytest.mark.parametrize("schedule", [Schedule.GPIPE, Schedule.ONE_F_ONE_B])
@pytest.mark.parametrize(("stages", "count"), PLAIN)
def test_plain_schedules_hold_what_the_simulation_holds(schedule: Schedule, stages: int, count: int) -> None:
    orders = orders_of(schedule, stages=stages, chunks=1, count=count)
    assert held(schedule, stages=stages, chunks=1, count=count) == [most_held(order) for order in orders]


@pytest.mark.parametrize(("stages", "chunks", "count"), FILLED)
def test_interleaved_schedules_hold_what_the_simulation_holds(stages: int, chunks: int, count: int) -> None:
    orders = orders_of(Schedule.INTERLEAVED, stages=stages, chunks=chunks, count=count)
    assert held(Schedule.INTERLEAVED, stages=stages, chunks=chunks, count=count) == pytest.approx(
        [most_held(order) / chunks for order in orders]
    )


def test_zero_bubble_2p_holds_up_to_twice_as_many() -> None:
    assert held(Schedule.ZERO_BUBBLE_2P, stages=4, chunks=1, count=16) == [7, 5, 3, 1]
    assert held(Schedule.ZERO_BUBBLE_2P, stages=4, chunks=1, count=4) == [4, 4, 3, 1]


def test_micro_batches_split_the_batch_over_replicas() -> None:
    layouts = LayoutTable.of([Layout(data_parallel=4, micro_batch=2), Layout(tensor_parallel=4)])
    assert micro_batches(64, layouts) == pytest.approx([8.0, 64.0])
