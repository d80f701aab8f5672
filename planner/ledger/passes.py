"""The order of a stage's passes under the schedules of PyTorch 2.13, which the launcher runs; chunks by their turn.

Micro-batches take turns, so that kinds and chunks say it all. Passes of several chunks come in rounds of M // max(1,
M // P) micro-batches a chunk, for M micro-batches and P stages. Sources: 1F1B and interleaved (arXiv 2104.04473,
section 2.2), zero-bubble (arXiv 2401.10241: ZB-H1 in section 2.1, ZBV in section 6), DualPipeV (deepseek-ai/DualPipe).
"""

from collections import Counter, deque
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice, repeat

from meshwright.catalog.schedule import Schedule
from meshwright.planner.ledger.workload import Workload


class Kind(StrEnum):
    """Kinds of passes: a forward one, a backward one, and its halves, by inputs and then by weights."""

    FORWARD = "forward"
    BACKWARD = "backward"
    INPUTS = "inputs"
    WEIGHTS = "weights"


Pass = tuple[Kind, int]
F, B, I, W = Kind.FORWARD, Kind.BACKWARD, Kind.INPUTS, Kind.WEIGHTS  # noqa: E741 - their usual letters


def passes_of(workload: Workload, stage: int) -> Iterator[Pass]:
    """Give what a stage runs in a step: kinds of passes, and which of its chunks they are of."""
    layout, count = workload.layout, workload.micro_batches
    behind = layout.pipeline_parallel - 1 - stage
    match layout.schedule if layout.pipeline_parallel > 1 else Schedule.ONE_F_ONE_B:
        case Schedule.GPIPE:
            return iter([(F, 0)] * count + [(B, 0)] * count)
        case Schedule.ZERO_BUBBLE_V:
            return _limited(_zero_bubble_v(stage, behind, max(count, 2 * layout.pipeline_parallel - 1)), count)
        case Schedule.DUAL_PIPE_V:
            return _dual_pipe_v(stage, behind, count)
        case schedule:
            return _in_turn(workload, behind, delay=stage if schedule is Schedule.ZERO_BUBBLE_H1 else None)


def _in_turn(workload: Workload, behind: int, *, delay: int | None) -> Iterator[Pass]:
    """Give forward passes, then a forward and a backward pass in turn, then backward passes.

    behind: stages downstream. delay: of how many backward passes weights wait; None where they are part of them.
    """
    chunks, count = workload.layout.virtual_pipeline, workload.micro_batches
    a_round = count // max(1, count // workload.layout.pipeline_parallel)
    turns = [turn // a_round % chunks for turn in range(count * chunks)]
    hops = 2 if workload.layout.schedule is Schedule.INTERLEAVED else 1
    ahead = min((chunks - 1) * a_round + hops * behind, len(turns))
    back = [chunks - 1 - chunk for chunk in turns]
    yield from zip(repeat(F), turns[:ahead])
    for number, chunk in enumerate(back):
        yield from zip(repeat(F), turns[ahead + number : ahead + number + 1])
        yield (B if delay is None else I, chunk)
        if delay is not None and number >= delay:
            yield (W, back[number - delay])
    if delay is not None:
        yield from zip(repeat(W), back[max(len(back) - delay, 0) :])


def _zero_bubble_v(stage: int, behind: int, count: int) -> Iterator[Pass]:
    """Give ZBV's passes of at least two micro-batches a stage, less one."""
    yield from repeat((F, 0), 2 * behind + 1)
    yield from [(F, 1), (F, 0)] * stage
    yield from [(F, 1), (I, 1), (W, 1)] * (behind + 1)
    first = count - (2 * behind + 1 + stage)
    for number in range(count - behind - 1 - stage):
        yield from islice([(F, 0)], int(number < first))
        yield from [(I, 0), (W, 0), (F, 1), (I, 1), (W, 1)]
    yield from [(I, 0), (I, 1)] * stage
    yield from [(I, 0), (W, 0)] * (behind + 1)
    yield from [(W, 1)] * stage + [(W, 0)] * stage


def _limited(passes: Iterator[Pass], count: int) -> Iterator[Pass]:
    """Leave out passes of micro-batches that there aren't."""
    seen: Counter[Pass] = Counter()
    for each in passes:
        seen[each] += 1
        if seen[each] <= count:
            yield each


def _dual_pipe_v(stage: int, behind: int, count: int) -> Iterator[Pass]:
    """Give DualPipeV's eight steps; pairs run one after the other."""
    yield from repeat((F, 0), 2 * behind)
    yield from [(F, 0), (F, 1)] * (stage + 1)
    yield from [(I, 1), (W, 1), (F, 1)] * behind
    yield from [(F, 0), (B, 1), (F, 1), (B, 0)] * (count - 2 * (stage + behind + 1) + stage + 1)
    yield from [(B, 1), (F, 1), (B, 0)] * behind
    yield from _dual_pipe_v_end(stage, behind)


def _dual_pipe_v_end(stage: int, behind: int) -> Iterator[Pass]:
    """Give the last three steps, whose second half puts weights off."""
    waiting: deque[int] = deque()
    backward = [chunk for _ in range(stage + 1) for chunk in (1, 0)]
    for number, chunk in enumerate(backward + [0] * behind):
        if number >= len(backward):
            yield (W, waiting.popleft())
        if number <= stage:
            yield (B, chunk)
        else:
            yield (I, chunk)
            waiting.append(chunk)
    yield from ((W, chunk) for chunk in waiting)
