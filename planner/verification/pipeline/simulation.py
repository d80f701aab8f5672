"""An event simulation of pipelines, which shares no code with the laws of the cost models.

It knows only in which order each stage runs its passes, what they take, and that a pass waits for the one that feeds
it, and for the message from it where that ran on another stage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshwright.planner.verification.pipeline.passes import Orders, Pass, Work, feeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """What passes take, by stage.

    pass_s: of each kind and chunk, for as long as its stage can run nothing else.
    paired_s: of each chunk, what its forward and its backward pass save as one work; those of two chunks save half of
    both. Empty where nothing is saved.
    message_s: for how long a message from stage to stage is under way, beside whatever the stages run.
    """

    pass_s: Sequence[Mapping[tuple[str, int], float]]
    paired_s: Sequence[Mapping[int, float]] = ()
    message_s: float = 0.0

    def work_s(self, stage: int, work: Work) -> float:
        """Give the seconds of passes that a stage runs as one."""
        if len(work) == 1:
            return self.pass_s[stage][work[0].kind, work[0].chunk]
        seconds = sum(self.pass_s[stage][what.kind, what.chunk] for what in work)
        both = [what.chunk for what in work if what.kind in ("F", "B")]
        if self.paired_s and len(both) > 1:
            seconds -= sum(self.paired_s[stage][chunk] for chunk in both) / 2
        return seconds


Ended = dict[Pass, tuple[float, int]]
"""When each pass ended, and on which stage."""


@dataclass(frozen=True, slots=True)
class Run:
    """When each stage began its first and ended its last pass."""

    began_s: tuple[float, ...]
    ended_s: tuple[float, ...]

    @property
    def step_s(self) -> float:
        """Seconds until the last stage is done."""
        return max(self.ended_s)

    @property
    def longest_stage_s(self) -> float:
        """Seconds of the stage that takes longest from its own first to its own last pass."""
        return max(ended - began for began, ended in zip(self.began_s, self.ended_s, strict=True))


def simulated(orders: Orders, durations: Durations) -> Run:
    """Run each stage's order as soon as what feeds it is there.

    Raises ValueError where stages wait for one another for ever, or for a pass that no stage runs.
    """
    last = max(what.chunk for order in orders for work in order for what in work)
    stages = [_Stage(number, order, durations) for number, order in enumerate(orders)]
    ended: Ended = {}
    while sum(stage.run(ended, last) for stage in stages):
        pass
    for stage in stages:
        if stage.done < len(stage.order):
            kind, batch, chunk = stage.order[stage.done][0]
            raise ValueError(
                f"stage {stage.number} waits for ever to run {kind} of micro-batch {batch} in chunk {chunk}"
            )
    return Run(tuple(stage.began_s or 0.0 for stage in stages), tuple(stage.free_s for stage in stages))


class _Stage:
    """A stage that runs its order: how far it is, and since when it is free."""

    def __init__(self, number: int, order: list[Work], durations: Durations) -> None:
        self.number, self.order, self.durations = number, order, durations
        self.done, self.free_s = 0, 0.0
        self.began_s: float | None = None

    def run(self, ended: Ended, last: int) -> bool:
        """Run all that can run by what has ended so far, and add when it ends; tell whether that was anything."""
        before = self.done
        while self.done < len(self.order):
            work = self.order[self.done]
            ready_s = self._ready_s(work, ended, last)
            if ready_s is None:
                break
            start_s = max(self.free_s, ready_s)
            if self.began_s is None:
                self.began_s = start_s
            self.free_s = start_s + self.durations.work_s(self.number, work)
            for what in work:
                ended[what] = self.free_s, self.number
            self.done += 1
        return self.done > before

    def _ready_s(self, work: Work, ended: Ended, last: int) -> float | None:
        """Give when all that feeds some work is there, None where that isn't known yet."""
        ready_s = 0.0
        for what in work:
            feed = feeds(what, last)
            if feed is None or feed in work:
                continue
            if feed not in ended:
                return None
            fed_s, sender = ended[feed]
            ready_s = max(ready_s, fed_s if sender == self.number else fed_s + self.durations.message_s)
        return ready_s
