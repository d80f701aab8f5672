"""The best split so far of a search, and when that is to stop."""

from dataclasses import dataclass, field
from time import perf_counter
from typing import Self

from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.full_ranks import filled
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.homogeneous import best_homogeneous
from meshwright.planner.sequences.mode import Mode
from meshwright.planner.sequences.split import Split, step_s

# Sequences and ranks of all tries together, and how many there are at least.
EFFORT = 12_000
EFFORT_IN_LOCKSTEP = 20_000
FEWEST_TRIES = 18
FEWEST_TRIES_IN_LOCKSTEP = 11
# The same of problems of no more sequences and ranks than this, which have the time for it.
FEWEST_TRIES_OF_FEWER = 28
FEWER = 4096


@dataclass(slots=True)
class Best:
    """The best split so far, and when to stop looking for a better one.

    until: a moment of perf_counter; infinite where only the search's own measure counts.
    full: whether each rank needs a sequence in each micro-batch.
    tries: how many more splits may be looked for: as many as EFFORT allows of a problem of this size.
    """

    costs: GroupCosts
    batch: Batch
    seconds: float
    split: Split
    mode: Mode
    until: float = float("inf")
    full: bool = False
    tries: float = field(init=False)

    def __post_init__(self) -> None:
        effort = EFFORT_IN_LOCKSTEP if self.mode is Mode.LOCKSTEP else EFFORT
        fewest = FEWEST_TRIES_IN_LOCKSTEP if self.mode is Mode.LOCKSTEP else FEWEST_TRIES
        size = len(self.batch) + self.costs.ranks
        if self.mode is Mode.LOCKSTEP and size <= FEWER:
            fewest = FEWEST_TRIES_OF_FEWER
        self.tries = max(effort // size, fewest)

    @classmethod
    def homogeneous(
        cls, costs: GroupCosts, batch: Batch, mode: Mode, *, until: float = float("inf"), full: bool = False
    ) -> Self | None:
        """Start from the best split into groups of one size; None where none gives each rank a sequence as asked."""
        first = best_homogeneous(costs, batch, mode, full=full)
        if first is None:
            return None
        seconds, split = first
        return cls(costs=costs, batch=batch, seconds=seconds, split=split, mode=mode, until=until, full=full)

    def offer(self, split: Split, mode: Mode) -> float:
        """Take a split if it is better, and give its seconds."""
        if self.full:
            whole = filled(self.costs, self.batch, split)
            if whole is None:
                return float("inf")
            split = whole
        seconds = step_s(self.costs, self.batch, split, mode)
        if seconds < self.seconds:
            self.seconds, self.split, self.mode = seconds, split, mode
        return seconds

    @property
    def late(self) -> bool:
        """Whether time or tries are up."""
        return self.tries <= 0 or self.overdue

    @property
    def overdue(self) -> bool:
        """Whether time is up."""
        return perf_counter() > self.until
