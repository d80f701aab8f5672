"""Stage times reproduce the predicted step: an event simulation of the schedule's orders takes as long.

A pass takes its seconds and what of its message is exposed; the rest of a message is under way beside passes. What the
breakdown has of gradients, parameters, the optimizer and overhead comes on top. A step of very many passes is simulated
with fewer micro-batches, and goes on as it did over the last rounds.
"""

from dataclasses import dataclass

from meshwright.catalog.schedule import Schedule
from meshwright.planner.plan_schema import PassesSection, Plan
from meshwright.planner.verification.batch import micro_batches
from meshwright.planner.verification.check import Failures, Found
from meshwright.planner.verification.pipeline.passes import Orders, Pass, Work
from meshwright.planner.verification.pipeline.schedules import GOING_ON, placed_chunks, run_as, stage_orders
from meshwright.planner.verification.pipeline.simulation import Durations, simulated
from meshwright.planner.verification.timing import outside_s
from meshwright.planner.verification.tolerance import Pipeline, Times, tolerance

# Forward and backward passes of all stages that are simulated one by one: some tenths of a second.
MOST_PASSES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """Seconds of the pipeline, and of how many micro-batches it was simulated."""

    seconds: float
    count: int


def step(plan: Plan) -> Found:
    """Check that the simulated step is the predicted one, within what the schedule's law is known to be off by."""
    predicted, total = plan.predicted, micro_batches(plan)
    try:
        found = simulated_pipeline(plan)
    except ValueError as error:
        return f"{plan.layout.schedule} of {total} micro-batches", [("layout.schedule", str(error))]
    schedule = run_as(plan.layout.schedule, plan.layout.virtual_pipeline)
    pipeline_s = predicted.step_time_s - outside_s(plan)
    allowed = tolerance(_pipeline(plan, schedule), step_s=pipeline_s)
    off = pipeline_s / found.seconds - 1
    step_s = found.seconds + outside_s(plan)
    counted = f"{total} micro-batches" if found.count == total else f"{found.count} of {total} micro-batches"
    what = f"{schedule} of {counted}: {step_s:.6g} s simulated, {predicted.step_time_s:.6g} s predicted"
    what += f", the pipeline {off:+.2%}; tolerance {allowed.share:.2%} ({allowed.because})"
    return what, _failures(step_s, predicted.step_time_s, off=off, share=allowed.share)


def _pipeline(plan: Plan, schedule: Schedule) -> Pipeline:
    passes = plan.predicted.passes
    return Pipeline(
        schedule=schedule,
        chunks=_chunk_times(plan),
        stages=len(plan.stages),
        count=micro_batches(plan),
        even=not plan.layout.split,
        under_way_s=_under_way_s(passes),
    )


def _under_way_s(passes: PassesSection) -> float:
    """Give the part of a message beside which stages compute."""
    return max(passes.message_s - passes.message_exposed_s, 0.0)


def _failures(step_s: float, told_s: float, *, off: float, share: float) -> Failures:
    if abs(off) > share:
        yield "predicted.step_time_s", f"is {told_s} s; the stage times make it {step_s:.9g} s by the schedule's orders"


def simulated_pipeline(plan: Plan, *, most_passes: int = MOST_PASSES) -> Simulated:
    """Simulate the pipeline of a plan, with fewer micro-batches than it has where those are too many passes.

    Raises ValueError where the schedule can't run them, or its stages wait for one another for ever.
    """
    count, rounds = micro_batches(plan), 2 * len(plan.stages)
    each = 2 * sum(len(stage.chunks) for stage in plan.stages)
    fewer = max(most_passes // each, 2 * rounds) // rounds * rounds + count % rounds
    if fewer >= count:
        return Simulated(seconds=_pipeline_s(plan, count), count=count)
    before_s, until_s = (_pipeline_s(plan, part) for part in (fewer - rounds, fewer))
    return Simulated(seconds=until_s + (count - fewer) / rounds * (until_s - before_s), count=fewer)


def _pipeline_s(plan: Plan, count: int) -> float:
    run = simulated(plan_orders(plan, count), _durations(plan))
    going_on = plan.layout.schedule in GOING_ON and not plan.inputs.stack.entry.steps_together
    return run.longest_stage_s if going_on else run.step_s


def plan_orders(plan: Plan, count: int) -> Orders:
    """Give the passes that each stage runs, of the chunks that the plan has where the schedule looks for its own.

    Raises ValueError where the schedule can't run so many micro-batches, or has another number of chunks a stage.
    """
    layout = plan.layout
    stages, chunks, ragged = layout.pipeline_parallel, layout.virtual_pipeline, plan.replica_batches is not None
    each = 2 if layout.schedule is Schedule.DUAL_PIPE else chunks
    for number, stage in enumerate(plan.stages):
        if len(stage.chunks) != each:
            raise ValueError(f"{layout.schedule} runs {each} chunks a stage; stage {number} has {len(stage.chunks)}")
    orders = stage_orders(layout.schedule, stages=stages, chunks=chunks, count=count, ragged=ragged)
    placed, held = placed_chunks(layout.schedule, stages=stages, chunks=chunks), held_chunks(plan)
    return orders if placed == held else [_renamed(*each) for each in zip(orders, placed, held, strict=True)]


def _renamed(order: list[Work], scheduled: list[int], held: list[int]) -> list[Work]:
    chunk = dict(zip(scheduled, held, strict=True))
    return [tuple(Pass(what.kind, what.batch, chunk[what.chunk]) for what in work) for work in order]


def held_chunks(plan: Plan) -> list[list[int]]:
    """Give by stage which of the model's chunks it holds, as its layers follow one another."""
    firsts = sorted({first for stage in plan.stages for first, _ in stage.chunks})
    return [[firsts.index(first) for first, _ in stage.chunks] for stage in plan.stages]


def _durations(plan: Plan) -> Durations:
    passes = plan.predicted.passes
    pass_s, paired_s = [], []
    for stage, own in enumerate(held_chunks(plan)):
        seconds: dict[tuple[str, int], float] = {}
        for place, chunk in enumerate(own):
            forward_s, backward_s, weight_s = _times(passes, stage, place)
            seconds["F", chunk] = forward_s + passes.message_exposed_s
            seconds["B", chunk] = backward_s + passes.message_exposed_s
            seconds["W", chunk] = weight_s
        pass_s.append(seconds)
        if passes.paired_s is not None:
            paired_s.append(dict(zip(own, passes.paired_s[stage], strict=True)))
    return Durations(pass_s=pass_s, paired_s=paired_s, message_s=_under_way_s(passes))


def _times(passes: PassesSection, stage: int, place: int) -> Times:
    weight_s = 0.0 if passes.weight_s is None else passes.weight_s[stage][place]
    return passes.forward_s[stage][place], passes.backward_s[stage][place], weight_s


def _chunk_times(plan: Plan) -> list[Times]:
    """Give the passes of each of the model's chunks, in order."""
    where = {chunk: (stage, place) for stage, own in enumerate(held_chunks(plan)) for place, chunk in enumerate(own)}
    return [_times(plan.predicted.passes, *where[chunk]) for chunk in sorted(where)]
