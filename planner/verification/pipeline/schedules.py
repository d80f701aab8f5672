"""Each schedule's orders, and where it places the model's chunks."""

from collections.abc import Callable

from meshwright.catalog.schedule import Schedule
from meshwright.planner.verification.pipeline.dual_pipe import dual_pipe, dual_pipe_v
from meshwright.planner.verification.pipeline.orders import gpipe, interleaved, one_chunk
from meshwright.planner.verification.pipeline.passes import Orders
from meshwright.planner.verification.pipeline.v_orders import v_order
from meshwright.planner.verification.pipeline.zero_bubble_v import zero_bubble_v

FOLDED = (Schedule.V_HALF, Schedule.V_MIN, Schedule.ZERO_BUBBLE_V, Schedule.DUAL_PIPE_V)
# Their stages can start the next step as soon as they are done, where nothing of it waits for all stages.
GOING_ON = (Schedule.ZERO_BUBBLE_H1, Schedule.ZERO_BUBBLE_2P, Schedule.ZERO_BUBBLE_V)


# From stages, chunks a stage, and micro-batches.
ORDERS: dict[Schedule, Callable[[int, int, int], Orders]] = {
    Schedule.GPIPE: lambda stages, _, count: gpipe(stages, count),
    Schedule.ONE_F_ONE_B: lambda stages, _, count: one_chunk(stages, count),
    Schedule.INTERLEAVED: lambda stages, chunks, count: interleaved(stages, count, chunks=chunks),
    Schedule.ZERO_BUBBLE_H1: lambda stages, _, count: one_chunk(stages, count, splits=True),
    Schedule.ZERO_BUBBLE_2P: lambda stages, _, count: one_chunk(stages, count, slack=2, splits=True),
    Schedule.V_HALF: lambda stages, _, count: v_order(stages, count, minimal=False),
    Schedule.V_MIN: lambda stages, _, count: v_order(stages, count, minimal=True),
    Schedule.ZERO_BUBBLE_V: lambda stages, _, count: zero_bubble_v(stages, count),
    Schedule.DUAL_PIPE: lambda stages, _, count: dual_pipe(stages, count),
    Schedule.DUAL_PIPE_V: lambda stages, _, count: dual_pipe_v(stages, count),
}


def run_as(schedule: Schedule, chunks: int) -> Schedule:
    """Give the schedule that stages of so many chunks run under this name.

    Interleaving one chunk is 1F1B; schedules of one chunk run several of them as interleaving does.
    """
    if schedule in FOLDED or schedule is Schedule.DUAL_PIPE:
        return schedule
    if chunks > 1:
        return Schedule.INTERLEAVED
    return Schedule.ONE_F_ONE_B if schedule is Schedule.INTERLEAVED else schedule


def placed_chunks(schedule: Schedule, *, stages: int, chunks: int) -> list[list[int]]:
    """Give each stage's chunks of the model, in the order in which it meets them.

    Raises ValueError where the schedule has no place for so many chunks or stages.
    """
    if schedule is Schedule.DUAL_PIPE:
        if stages % 2 or chunks != 1:
            raise ValueError(f"dualpipe runs one chunk twice on an even number of stages, not {chunks} on {stages}")
        return [[stage, stages - 1 - stage] for stage in range(stages)]
    if schedule in FOLDED:
        if chunks != 2:
            raise ValueError(f"{schedule} runs two chunks a stage, not {chunks}")
        return [[stage, 2 * stages - 1 - stage] for stage in range(stages)]
    return [[lap * stages + stage for lap in range(chunks)] for stage in range(stages)]


def stage_orders(schedule: Schedule, *, stages: int, chunks: int, count: int, ragged: bool = False) -> Orders:
    """Give the passes that each stage runs for `count` micro-batches, in order, of chunks placed as above.

    ragged: interleaving may have a block that is longer than the others.

    Raises ValueError where the schedule can't run so many.
    """
    running = run_as(schedule, chunks)
    if running is Schedule.INTERLEAVED and (count < stages if ragged else count % stages):
        raise ValueError(f"interleaving takes micro-batches in multiples of its {stages} stages, not {count}")
    if running in (Schedule.DUAL_PIPE, Schedule.DUAL_PIPE_V) and count < 2 * stages:
        raise ValueError(f"{running} takes at least {2 * stages} micro-batches, two a stage, not {count}")
    if running is Schedule.DUAL_PIPE and count % 2:
        raise ValueError(f"dualpipe feeds half of the micro-batches from each end, and {count} are odd")
    return ORDERS[running](stages, chunks, count)
