"""The simulated step: events by hand, every schedule with uneven stages, and tolerances that laws keep."""

from random import Random

import pytest
from simulation.pipelines import chunks_of, law_s, proportional, ran
from verified_plans import DENSE, MIXTURE, found, golden_plan, plan_with

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout
from meshwright.planner.verification import verify
from meshwright.planner.verification.batch import micro_batches
from meshwright.planner.verification.exchange import exchange
from meshwright.planner.verification.pipeline.passes import Pass, alone
from meshwright.planner.verification.pipeline.schedules import FOLDED, placed_chunks, run_as, stage_orders
from meshwright.planner.verification.pipeline.simulation import Durations, simulated
from meshwright.planner.verification.step import plan_orders, simulated_pipeline
from meshwright.planner.verification.tolerance import Pipeline, tolerance

ALL = list(Schedule)


def chunks_a_stage(schedule: Schedule) -> int:
    return 2 if schedule in (*FOLDED, Schedule.INTERLEAVED) else 1


def test_messages_are_waited_for_where_stages_differ() -> None:
    # Two stages, two micro-batches, f = 1, b = 2, half a second a message:
    # stage 0  f1 f2 . . .  b1b1 .  b2b2      0-1 1-2        5-7  8-10
    # stage 1  .  f1 b1b1 f2 b2b2             1.5-2.5 2.5-4.5 4.5-5.5 5.5-7.5
    orders = stage_orders(Schedule.ONE_F_ONE_B, stages=2, chunks=1, count=2)
    times = {("F", 0): 1.0, ("B", 0): 2.0, ("F", 1): 1.0, ("B", 1): 2.0}
    run = simulated(orders, Durations(pass_s=[times, times], message_s=0.5))
    assert run.began_s == (0.0, 1.5)
    assert run.ended_s == (10.0, 7.5)
    assert run.longest_stage_s == 10.0


def test_no_message_goes_to_a_stage_itself() -> None:
    # ZBV's last stage has both middle chunks: two of four forward passes hops, there and back, cost a message.
    orders = stage_orders(Schedule.ZERO_BUBBLE_V, stages=2, chunks=2, count=1)
    times = {(kind, chunk): 1.0 for kind in "FBW" for chunk in range(4)}
    apart, together = (simulated(orders, Durations(pass_s=[times] * 2, message_s=each)).step_s for each in (1.0, 0.0))
    assert apart - together == 4.0


def test_pairs_save_half_of_what_both_chunks_do() -> None:
    times = {(kind, chunk): 1.0 for kind in "FB" for chunk in range(2)}
    pair = [(Pass("F", 0, 0),), (Pass("F", 0, 1),), (Pass("F", 1, 0), Pass("B", 0, 1))]
    run = simulated([pair], Durations(pass_s=[times], paired_s=[{0: 0.2, 1: 0.6}]))
    assert run.step_s == pytest.approx(4.0 - 0.4)


def test_orders_that_wait_for_one_another_are_told() -> None:
    times = {("F", 0): 1.0, ("B", 0): 1.0}
    with pytest.raises(ValueError, match="stage 0 waits for ever to run B of micro-batch 0 in chunk 0"):
        simulated([alone(("B", 0, 0), ("F", 0, 0))], Durations(pass_s=[times]))


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize(("stages", "count"), [(2, 8), (4, 8), (4, 16), (6, 12)])
def test_orders_run_every_pass_once_where_its_chunk_is(schedule: Schedule, stages: int, count: int) -> None:
    chunks = chunks_a_stage(schedule)
    placed = placed_chunks(schedule, stages=stages, chunks=chunks)
    orders = stage_orders(schedule, stages=stages, chunks=chunks, count=count)
    whole = {chunk for own in placed for chunk in own}
    passes = [what for order in orders for work in order for what in work if what.kind != "W"]
    assert sorted(passes) == [Pass(kind, batch, chunk) for kind in "BF" for batch in range(count) for chunk in whole]
    assert [set(chunks_of(order)) for order in orders] == [set(own) for own in placed]


@pytest.mark.parametrize(
    ("schedule", "stages", "chunks", "count", "told"),
    [
        (Schedule.INTERLEAVED, 4, 2, 6, "multiples of its 4 stages, not 6"),
        (Schedule.DUAL_PIPE, 4, 1, 6, "at least 8 micro-batches"),
        (Schedule.DUAL_PIPE, 4, 1, 9, "9 are odd"),
        (Schedule.DUAL_PIPE_V, 4, 2, 7, "at least 8 micro-batches"),
    ],
)
def test_counts_that_a_schedule_cant_run_are_told(
    schedule: Schedule, stages: int, chunks: int, count: int, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        stage_orders(schedule, stages=stages, chunks=chunks, count=count)


UNEVEN = {1: (6, 9, 8, 9), 2: (3, 4, 4, 5, 4, 4, 5, 3)}


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("even", [True, False])
def test_every_schedule_reproduces_the_step(schedule: Schedule, together: bool, even: bool) -> None:
    chunks = chunks_a_stage(schedule)
    layout = Layout(
        pipeline_parallel=4,
        virtual_pipeline=chunks,
        data_parallel=16,
        expert_parallel=8,
        zero_stage=1,
        zero_shard=16,
        schedule=schedule,
        split=() if even else UNEVEN[chunks],
    )
    plan = plan_with(golden_plan(MIXTURE), layout, global_batch=256, together=together)
    assert set(found(verify(plan))) <= {"memory"}  # which such layouts may have too little of


@pytest.mark.parametrize("schedule", [Schedule.GPIPE, Schedule.ONE_F_ONE_B, Schedule.ZERO_BUBBLE_H1])
def test_single_chunks_reproduce_the_step_closely(schedule: Schedule) -> None:
    # Messages are half a per cent of this step, and in the simulation lie between passes.
    layout = Layout(pipeline_parallel=4, data_parallel=2, zero_stage=1, zero_shard=2, schedule=schedule)
    plan = plan_with(golden_plan(DENSE), layout, global_batch=64)
    assert plan.predicted.time_breakdown_s["pipeline_communication"] > 0.005 * plan.predicted.step_time_s
    outside = ("gradient_communication", "parameter_communication", "optimizer", "step_overhead")
    pipeline_s = plan.predicted.step_time_s - sum(plan.predicted.time_breakdown_s[name] for name in outside)
    assert simulated_pipeline(plan).seconds == pytest.approx(pipeline_s, rel=2e-3)


@pytest.mark.parametrize("schedule", ALL)
def test_a_step_of_many_passes_goes_on_as_it_did(schedule: Schedule) -> None:
    chunks = chunks_a_stage(schedule)
    layout = Layout(pipeline_parallel=4, virtual_pipeline=chunks, data_parallel=2, schedule=schedule)
    plan = plan_with(golden_plan(DENSE), layout, global_batch=192)
    whole, part = simulated_pipeline(plan), simulated_pipeline(plan, most_passes=300)
    assert (whole.count, micro_batches(plan)) == (96, 96)
    assert part.count < 48
    assert part.seconds == pytest.approx(whole.seconds, rel=1e-3)


@pytest.mark.parametrize("schedule", ALL)
def test_every_send_has_its_receive(schedule: Schedule) -> None:
    chunks = chunks_a_stage(schedule)
    layout = Layout(pipeline_parallel=4, virtual_pipeline=chunks, data_parallel=2, schedule=schedule)
    plan = plan_with(golden_plan(DENSE), layout, global_batch=32)
    what, failures = exchange(plan, plan_orders(plan, 16))
    assert list(failures) == []
    # Of 16 micro-batches forward and backward: 3 hops, 7 in rounds, 6 folded, since the model turns on one stage.
    hops = {Schedule.INTERLEAVED: 7} | dict.fromkeys(FOLDED, 6)
    assert what.startswith(f"{2 * 16 * hops.get(schedule, 3)} messages of 16 micro-batches")


def test_a_send_too_many_is_found() -> None:
    plan = plan_with(golden_plan(DENSE), Layout(pipeline_parallel=4, data_parallel=2), global_batch=32)
    orders = plan_orders(plan, 8)
    orders[2] = [work for work in orders[2] if work != (Pass("F", 7, 2),)]
    _, failures = exchange(plan, orders)
    assert list(failures) == [
        ("stages.1.chunks", "sends 8 outputs to stage 2, which waits for 7"),
        ("stages.2.chunks", "sends 7 outputs to stage 3, which waits for 8"),
    ]


def test_gradients_sent_in_another_order_are_found() -> None:
    plan = plan_with(golden_plan(DENSE), Layout(pipeline_parallel=4, data_parallel=2), global_batch=32)
    orders = plan_orders(plan, 8)
    first, second = (orders[3].index((Pass("B", batch, 3),)) for batch in (2, 3))
    orders[3][first], orders[3][second] = orders[3][second], orders[3][first]
    _, failures = exchange(plan, orders)
    told = "sends the gradients of micro-batch 3 where stage 2 waits for those of 2"
    assert list(failures) == [("stages.3.chunks", told)]


def drawn(schedule: Schedule, random: Random) -> tuple[float, Pipeline]:
    """Draw a pipeline, and give by how much the law of its schedule is off."""
    stages = random.choice([2, 4, 6, 8])
    chunks = chunks_a_stage(schedule)
    whole = stages if schedule is Schedule.DUAL_PIPE else stages * chunks
    shape = random.choice(["equal", "ends", "any"])
    sizes = [random.uniform(0.5, 1.5) if shape == "any" else 1.0 for _ in range(whole)]
    if shape == "ends":
        sizes[0], sizes[-1] = random.uniform(0.5, 1.1), random.uniform(0.5, 3.0)
    splits = schedule not in (Schedule.GPIPE, Schedule.ONE_F_ONE_B, Schedule.INTERLEAVED)
    backward, weight = random.uniform(1.0, 3.0), random.uniform(0.3, 1.2) if splits else 0.0
    count = stages * random.choice([2, 3, 4] if splits else [1, 2, 4])
    orders = stage_orders(schedule, stages=stages, chunks=chunks, count=count)
    seconds = proportional(sizes, backward=backward, weight=weight)
    off = law_s(schedule, orders, seconds, count) / ran(orders, seconds).step_s - 1
    times = [(seconds["F"][chunk], seconds["B"][chunk], seconds["W"][chunk]) for chunk in range(whole)]
    running = run_as(schedule, chunks)
    return off, Pipeline(schedule=running, chunks=times, stages=stages, count=count, even=shape == "equal")


@pytest.mark.parametrize("schedule", ALL)
def test_laws_keep_to_their_tolerance(schedule: Schedule) -> None:
    random = Random(schedule)
    for _ in range(60):
        off, pipeline = drawn(schedule, random)
        allowed = tolerance(pipeline, step_s=1.0)
        assert abs(off) <= allowed.share, (pipeline, allowed)


def pipeline_of(schedule: Schedule, sizes: list[float], *, stages: int, count: int, even: bool = True) -> Pipeline:
    times = [(size, 1.5 * size, 0.8 * size) for size in sizes]
    return Pipeline(schedule=schedule, chunks=times, stages=stages, count=count, even=even)


@pytest.mark.parametrize(
    ("schedule", "sizes", "stages", "count", "share"),
    [
        (Schedule.GPIPE, [1, 2, 3, 4], 4, 1, 0.01),
        (Schedule.ONE_F_ONE_B, [1, 2, 3, 4], 4, 5, 0.01),
        (Schedule.ONE_F_ONE_B, [1, 2, 3, 4], 4, 4, 0.10),
        (Schedule.ZERO_BUBBLE_H1, [1, 1, 1, 1], 4, 6, 0.10),
        (Schedule.ZERO_BUBBLE_2P, [1, 1, 1, 1], 4, 11, 0.01),
        (Schedule.INTERLEAVED, [0.8, 1, 1, 1, 1, 2], 3, 6, 0.01),
        (Schedule.INTERLEAVED, [0.8, 1, 1, 1, 1, 2], 3, 3, 0.03),
        (Schedule.INTERLEAVED, [1, 1, 1, 1], 2, 8, 0.03),
        (Schedule.INTERLEAVED, [1, 2, 2, 2, 1, 1], 3, 6, 0.07),
        (Schedule.V_HALF, [1] * 8, 4, 8, 0.02),
        (Schedule.V_HALF, [1] * 4, 2, 8, 0.07),
        (Schedule.ZERO_BUBBLE_V, [1] * 8, 4, 8, 0.01),
        (Schedule.ZERO_BUBBLE_V, [1.2, 1, 1, 1, 1, 1, 1, 0.8], 4, 8, 0.12),
        (Schedule.ZERO_BUBBLE_V, [1.2, 1, 1, 1, 1, 1, 1, 0.8], 4, 4, 0.20),
        (Schedule.V_MIN, [1.2, 1, 1, 0.8], 2, 8, 0.35),
        (Schedule.DUAL_PIPE, [1] * 4, 4, 8, 0.01),
    ],
)
def test_tolerances(schedule: Schedule, sizes: list[float], stages: int, count: int, share: float) -> None:
    assert tolerance(pipeline_of(schedule, sizes, stages=stages, count=count), step_s=1.0).share == share


def test_an_uneven_cut_and_messages_of_more_laps_have_a_tolerance_of_their_own() -> None:
    uneven = pipeline_of(Schedule.INTERLEAVED, [1, 2, 2, 2, 1, 1], stages=3, count=6, even=False)
    assert tolerance(uneven, step_s=1.0).share == 0.20
    equal = Pipeline(
        schedule=Schedule.INTERLEAVED, chunks=[(1, 2, 0)] * 12, stages=4, count=8, even=True, under_way_s=0.01
    )
    # Two laps more than one, of 2 x 4 messages: 0.16 of 80 s.
    assert tolerance(equal, step_s=80.0).share == pytest.approx(0.01 + 0.002)
