"""SkipPipe: micro-batches that skip some stages of a pipeline, and pass the others in an order that avoids collisions.

Each micro-batch skips a share of the stages, never the first or the last, so that all stages between are skipped as
often (arXiv 2502.19913, section 4): micro-batch m of P stages skips s = floor(share P) of the P - 2 between, those from
m s on, around. A pass goes to the stage that is next on its path; where that is busy and the one behind it isn't, and
both are between the ends, the two are passed the other way round. Backward passes go back the way their forward passes
came. A stage runs one pass at a time: the schedule is built pass by pass, so that none collide, backward passes first,
then those of earlier micro-batches; at most as many micro-batches are under way as the first stage may hold.

    step = end of the last pass + the end of a step + overhead
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from meshwright.costmodels.island_links import NOTHING
from meshwright.planner.mixed.ways.allowed import Allowed
from meshwright.planner.mixed.ways.way import Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A pass of a micro-batch on a stage, forward or backward, from when to when."""

    micro_batch: int
    stage: int
    backward: bool
    begins_s: float
    ends_s: float


def skipped_stages(stages: int, *, percent: int) -> int:
    """Give how many stages each micro-batch skips."""
    return max(min(percent * stages // 100, stages - 2), 0)


def paths(stages: int, micro_batches: int, *, share: float) -> tuple[tuple[int, ...], ...]:
    """Give the stages that each micro-batch passes, in the model's order."""
    between, count = stages - 2, skipped_stages(stages, percent=round(100 * share))
    found = []
    for number in range(micro_batches):
        skipped = {1 + (number * count + step) % between for step in range(count)} if count else set()
        found.append(tuple(stage for stage in range(stages) if stage not in skipped))
    return tuple(found)


def schedule(
    forward_s: Sequence[float], backward_s: Sequence[float], micro_batches: int, *, share: float
) -> tuple[Pass, ...]:
    """Give the passes of a step, in the order in which they begin.

    Args:
        forward_s: of each stage, with the messages that it waits for.
        backward_s: likewise.
        micro_batches: of a replica.
        share: of the stages that each micro-batch skips.

    """
    stages = len(forward_s)
    ahead = [list(path) for path in paths(stages, micro_batches, share=share)]
    came: list[list[int]] = [[] for _ in range(micro_batches)]
    free, passes, started = [0.0] * stages, [], 0
    ready: list[tuple[float, int, int]] = []

    def start() -> None:
        nonlocal started
        if started < micro_batches:
            heappush(ready, (0.0 if started < stages else free[0], 1, started))
            started += 1

    for _ in range(min(stages, micro_batches)):
        start()
    while ready:
        now, kind, number = heappop(ready)
        backward = kind == 0
        stage = came[number][-1] if backward else _next(ahead[number], free, now, stages)
        if free[stage] > now:
            heappush(ready, (free[stage], kind, number))
            continue
        ends = now + (backward_s if backward else forward_s)[stage]
        free[stage] = ends
        passes.append(Pass(micro_batch=number, stage=stage, backward=backward, begins_s=now, ends_s=ends))
        if backward:
            came[number].pop()
            if came[number]:
                heappush(ready, (ends, 0, number))
            else:
                start()
        else:
            ahead[number].remove(stage)
            came[number].append(stage)
            heappush(ready, (ends, 1 if ahead[number] else 0, number))
    return tuple(passes)


def _next(ahead: Sequence[int], free: Sequence[float], now: float, stages: int) -> int:
    """Give the stage that a forward pass goes to: the next one, or that behind it where only that is idle."""
    first = ahead[0]
    if len(ahead) > 1 and free[first] > now:
        second = ahead[1]
        if first > 0 and second < stages - 1 and free[second] <= now:
            return second
    return first


def step_of(passes: Sequence[Pass]) -> float:
    """Give when the last pass ends."""
    return max(each.ends_s for each in passes)


def skipping(
    forward_s: Sequence[float], backward_s: Sequence[float], micro_batches: int, *, percent: int
) -> tuple[Way, float]:
    """Give the way, and when the last pass of a step ends."""
    passes = schedule(forward_s, backward_s, micro_batches, share=percent / 100)
    stages = len(forward_s)
    skipped = skipped_stages(stages, percent=percent)
    way = Way(
        name=Allowed.SKIP_STAGES,
        exchange=NOTHING,
        state_bytes=0.0,
        settings={"stages": stages, "skipped": skipped, "passes_s": step_of(passes)},
        trades=f"each micro-batch skips {skipped} of {stages} stages, whose layers don't see it",
        source="arXiv 2502.19913",
    )
    return way, step_of(passes)
