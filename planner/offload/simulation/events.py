"""Tasks on resources that do one thing at a time: of those that wait for nothing, the one that was given first.

A task begins when its resource is free and all tasks that it waits for have ended. It changes what memory holds as it
begins and as it ends.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """resource: where it runs. after: numbers of the tasks that it waits for.

    begins, ends: by memory, the bytes that it takes (negative: gives back) then.
    """

    resource: str
    seconds: float
    after: tuple[int, ...] = ()
    begins: Mapping[str, float] = field(default_factory=dict)
    ends: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """When the last task ended, and the most that each memory held; ended_s: of each task."""

    seconds: float
    peak_bytes: Mapping[str, float]
    ended_s: Sequence[float]


def run(tasks: Sequence[Task], holds: Mapping[str, float]) -> Trace:
    """Run tasks, numbered in their order, from memories that hold something already."""
    ready: dict[str, list[int]] = defaultdict(list)
    waiting = [len(set(task.after)) for task in tasks]
    followers: dict[int, list[int]] = defaultdict(list)
    for number, task in enumerate(tasks):
        if not waiting[number]:
            heappush(ready[task.resource], number)
        for before in set(task.after):
            followers[before].append(number)
    busy: set[str] = set()
    held, peak = defaultdict(float, holds), defaultdict(float, holds)
    ended = [0.0] * len(tasks)
    heap: list[tuple[float, int]] = []

    def change(by: Mapping[str, float]) -> None:
        for memory, taken in by.items():
            held[memory] += taken
            peak[memory] = max(peak[memory], held[memory])

    def begin(resource: str, now: float) -> None:
        if resource in busy or not ready[resource]:
            return
        number = heappop(ready[resource])
        busy.add(resource)
        change(tasks[number].begins)
        heappush(heap, (now + tasks[number].seconds, number))

    for resource in sorted(ready):
        begin(resource, 0.0)
    now = 0.0
    while heap:
        now, number = heappop(heap)
        ended[number] = now
        change(tasks[number].ends)
        busy.discard(tasks[number].resource)
        freed = {tasks[number].resource}
        for follower in followers[number]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heappush(ready[tasks[follower].resource], follower)
                freed.add(tasks[follower].resource)
        for resource in sorted(freed):
            begin(resource, now)
    return Trace(seconds=now, peak_bytes=dict(peak), ended_s=ended)
