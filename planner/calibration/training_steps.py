"""The steps that a training log prints: how long each took, and the most memory any took.

Known are the lines of Megatron-LM and what descends from it (Megatron-DeepSpeed, MindSpeed-LLM, FlagScale),

    iteration 5/ 100 | ... elapsed time per iteration (ms): 5364.1 | ... global batch size: 128 | ...
    [Rank 1] (after 1 iterations) memory (MB) | allocated: 54250.9 | max allocated: 54250.9 | reserved: ...

(MB are 2^20 bytes there), of TorchTitan, which prints tokens a second and device,

    step: 10  loss: 7.2  memory: 66.91GiB(37.51%)  tps: 10,050  tflops: 314.71  mfu: 13.99%

and of others any "step time", "iteration time" or "train_step_timing" with its unit.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from meshwright.catalog.errors import InputError
from meshwright.planner.accuracy.case import MemoryKind
from meshwright.planner.calibration.log_text import log_lines, number_between

SHORTEST_STEP_S = 1e-5
LONGEST_STEP_S = 1e6
LARGEST_RATE = 1e9
FEWEST_STEPS = 3

_MEGATRON = re.compile(r"elapsed time per iteration \(ms\):\s*([^\s|/]*)")
_ITERATION = re.compile(r"\biteration\s+([0-9]{1,9})\s*/")
_BATCH = re.compile(r"\bgl(?:ob|ao)al batch size:\s*([0-9]{1,9})")
_TITAN = re.compile(r"\bstep:\s*([0-9]{1,9})\b.*\btps:\s*([^\s|]+)")
_TITAN_MEMORY = re.compile(r"\bmemory:\s*([0-9.]+)\s*GiB\(")
_OTHER = re.compile(
    r"\b(?:train[_ -])?(?:step|iter|iteration|batch)[_ -]?(?:time|timing|duration)"
    r"(?:\s+in\s+|\s*[\[(]\s*|_)?(s|secs?|seconds|ms|us)?[\])]?\s*[:=]\s*([^\s|,;a-zA-Z]+|nan|inf)\s*(s|secs?|seconds|ms|us)?\b",
    re.IGNORECASE,
)
_STEP = re.compile(r"\b(?:global_)?(?:step|iter|iteration)s?\b[\s:=#]*([0-9]{1,9})\b", re.IGNORECASE)
_MEGATRON_MEMORY = re.compile(r"memory \(MB\)\s*\|.*?\bmax[_ ]allocated:\s*([^\s|]+)")
_RANK = re.compile(r"\[Rank\s+([0-9]{1,7})\]")
_BYTES = re.compile(r"\bmem-max-allocated-bytes['\"]?\s*[:=]\s*([^\s|,]+)")
_SECONDS = {"s": 1.0, "sec": 1.0, "secs": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6}
LARGEST_MEMORY_BYTES = 1e15


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of a step: its seconds, or the tokens that each device did a second; the other is 0."""

    number: int
    line: int
    time_s: float = 0.0
    device_tokens_per_s: float = 0.0
    global_batch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The most memory that a line told of; the rank where it says which."""

    bytes: int
    kind: MemoryKind
    rank: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """The median of the steady steps: seconds, or tokens a device and second; the other is 0.

    steps: how many they are; line: the first of their lines; global_batch: theirs, where it is told.
    """

    time_s: float
    device_tokens_per_s: float
    global_batch: int | None
    steps: int
    line: int

    def step_time_s(self, *, device_tokens: float) -> float:
        """Give the seconds of a step in which each device does its share of the tokens."""
        return self.time_s or device_tokens / self.device_tokens_per_s


def looks_like_training_log(text: str) -> bool:
    """Tell whether a text has a line of a step."""
    return any(_MEGATRON.search(line) or _TITAN.search(line) or _OTHER.search(line) for _, line in log_lines(text))


def steps_of(text: str, *, file: str) -> tuple[Step, ...]:
    """Give the steps of a log in order. Raises InputError with the line where a time is no number or has no unit."""
    return tuple(_steps(text, file=file))


def _steps(text: str, *, file: str) -> Iterator[Step]:
    count = 0
    for line, content in log_lines(text):
        step = (
            _megatron_step(content, count, file=file, line=line)
            or _titan_step(content, file=file, line=line)
            or _other_step(content, count, file=file, line=line)
        )
        if step is not None:
            count += 1
            yield step


def _megatron_step(content: str, count: int, *, file: str, line: int) -> Step | None:
    match = _MEGATRON.search(content)
    if match is None:
        return None
    number, batch = _ITERATION.search(content), _BATCH.search(content)
    return Step(
        number=int(number[1]) if number else count,
        line=line,
        time_s=_time_s(match[1], "ms", file=file, line=line),
        global_batch=int(batch[1]) if batch else None,
    )


def _titan_step(content: str, *, file: str, line: int) -> Step | None:
    match = _TITAN.search(content)
    if match is None:
        return None
    rate = number_between(match[2], 1e-3, LARGEST_RATE, what="tps", file=file, line=line)
    return Step(number=int(match[1]), line=line, device_tokens_per_s=rate)


def _other_step(content: str, count: int, *, file: str, line: int) -> Step | None:
    match = _OTHER.search(content)
    if match is None:
        return None
    unit = (match[3] or match[1] or "").casefold()
    if not unit:
        raise InputError(
            f"line {line}: the time of the step has no unit: {' '.join(match[0].split())!r:.60}",
            file=file,
            hint='write "step time: 1.25 s" or "step_time_ms: 1250"',
        )
    number = _STEP.search(content[: match.start()]) or _STEP.search(content[match.end() :])
    return Step(
        number=int(number[1]) if number else count,
        line=line,
        time_s=_time_s(match[2], unit, file=file, line=line),
    )


def _time_s(token: str, unit: str, *, file: str, line: int) -> float:
    scale = _SECONDS[unit]
    return scale * number_between(
        token, SHORTEST_STEP_S / scale, LONGEST_STEP_S / scale, what=f"the time in {unit}", file=file, line=line
    )


def steady_of(steps: tuple[Step, ...], *, file: str) -> Steady:
    """Take the median over the last two thirds of the distinct steps, of those with the last one's batch.

    The first third warms up, and a batch that grows as training starts is another job. Where several ranks print a
    step, all their lines count. Raises InputError where fewer than FEWEST_STEPS distinct steps are left to part.
    """
    if not steps:
        raise InputError(
            "holds no step that tells its time",
            file=file,
            hint='known are the lines of Megatron-LM and TorchTitan, and lines such as "step time: 1.25 s"',
        )
    batch = next((step.global_batch for step in reversed(steps) if step.global_batch is not None), None)
    alike = [step for step in steps if step.global_batch in {None, batch}]
    numbers = list(dict.fromkeys(step.number for step in alike))
    if len(numbers) < FEWEST_STEPS:
        raise InputError(
            f"holds {len(numbers)} steps of its last batch size, and at least {FEWEST_STEPS} are needed",
            file=file,
            hint="run a few more steps, and log each: the first third warms up and doesn't count",
        )
    warm = set(numbers[-(-len(numbers) // 3) :])
    steady = [step for step in alike if step.number in warm]
    times = [step.time_s for step in steady if step.time_s]
    return Steady(
        time_s=median(times) if times else 0.0,
        device_tokens_per_s=0.0 if times else median(step.device_tokens_per_s for step in steady),
        global_batch=batch,
        steps=len(warm),
        line=steady[0].line,
    )


def peak_of(text: str, *, file: str) -> Peak | None:
    """Give the largest memory that a log tells, allocated where it tells that, else reserved; None where it tells none.

    Raises InputError where a figure is none.
    """
    peaks = list(_peaks(text, file=file))
    allocated = [peak for peak in peaks if peak.kind is MemoryKind.ALLOCATED]
    return max(allocated or peaks, key=lambda peak: peak.bytes, default=None)


def _peaks(text: str, *, file: str) -> Iterator[Peak]:
    for line, content in log_lines(text):
        if match := _MEGATRON_MEMORY.search(content):
            size = _memory(match[1], 2**20, file=file, line=line)
            rank = _RANK.search(content)
            yield Peak(bytes=size, kind=MemoryKind.ALLOCATED, rank=rank[1] if rank else None)
        elif match := _BYTES.search(content):
            yield Peak(bytes=_memory(match[1], 1, file=file, line=line), kind=MemoryKind.ALLOCATED)
        elif _TITAN.search(content) and (match := _TITAN_MEMORY.search(content)):
            # TorchTitan prints the peak of what its allocator reserved (torchtitan/components/metrics.py).
            yield Peak(bytes=_memory(match[1], 2**30, file=file, line=line), kind=MemoryKind.RESERVED)


def _memory(token: str, scale: int, *, file: str, line: int) -> int:
    most = LARGEST_MEMORY_BYTES / scale
    return round(scale * number_between(token, 1 / scale, most, what="the memory", file=file, line=line))
