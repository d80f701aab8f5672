"""Micro-batches of unlike times: each as long as one of the longest sequences left takes, filled up, then the next.

With barriers a sequence that all ranks share to end soon makes a short micro-batch of its own; spread over fewer ranks
a longer one with room beside it. So the first one's time is tried for each degree of the longest few sequences; it
takes what it has room for, the longest first, and what is left is split the same way. The last ones, as many as memory
asks for, have equal times, which are halved down to.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import IntArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.packing import packed, packed_part
from meshwright.planner.sequences.quick_bound import fewest_micro_batches, quick_bound_s
from meshwright.planner.sequences.shelves import shelved
from meshwright.planner.sequences.split import Split, joined, placed

# How many of the longest sequences have their times tried, for the first micro-batch and the next ones; the ways that
# are followed, and how many micro-batches one after another.
LONGEST = (3, 1, 1)
FOLLOWED = 2
DEEPEST = 3
# Excess over its bound of the first and each further try at the last ones, and to what it is then halved.
EXCESSES = (0.015, 0.06, 0.2, 0.6)
HALVINGS = 2
# Of what is known, that a way's bound has to be below.
WORTHWHILE = 2e-3
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Micro-batches so far with the sequences of each, their seconds, and the numbers of the sequences left."""

    splits: tuple[tuple[Split, IntArray], ...]
    seconds: float
    left: IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shelves:
    """The search.

    offer: is given each split that is found. known_s: tells what the best one takes. spend: is told of each packing how
    many sequences it is of, and tells whether there may be one.
    """

    costs: GroupCosts
    batch: Batch
    offer: Callable[[Split], float]
    known_s: Callable[[], float]
    spend: Callable[[int], bool]

    def search(self) -> None:
        """Follow ways from the first micro-batch on."""
        self._follow(Way(splits=(), seconds=0.0, left=np.arange(len(self.batch))), 1)

    def _follow(self, way: Way, depth: int) -> None:
        rest = self.batch.part(way.left)
        fewest = fewest_micro_batches(self.costs, rest)
        if way.seconds + quick_bound_s(self.costs, rest, micro_batches=max(fewest, 2)) >= self._worthwhile_s():
            return
        found = sorted(self._further(way, rest), key=lambda found: found[0])[:FOLLOWED]
        for bound_s, further in found:
            if bound_s < self._worthwhile_s():
                self._close(further)
        for bound_s, further in found:
            if bound_s < self._worthwhile_s() and depth < DEEPEST:
                self._follow(further, depth + 1)

    def _worthwhile_s(self) -> float:
        return self.known_s() * (1 - WORTHWHILE)

    def _further(self, way: Way, rest: Batch) -> Iterator[tuple[float, Way]]:
        """Give the ways with one more micro-batch, and the bound of each."""
        least_s = float(rest.alone_s[:, 0].min())
        alone_s = np.unique(rest.alone_s[:, : LONGEST[len(way.splits)]])
        for limit_s in alone_s[np.isfinite(alone_s) & (alone_s >= least_s)].tolist():
            if way.seconds + limit_s >= self._worthwhile_s() or not self.spend(len(rest)):
                return
            groups = packed_part(self.costs, rest, limit_s * (1 + ROUNDING))
            taken = groups.group >= 0
            left = np.flatnonzero(~taken)
            seconds = way.seconds + limit_s
            split = placed(self.costs, groups.degree, groups.group[taken], groups.micro_batch)
            further = Way(splits=(*way.splits, (split, way.left[taken])), seconds=seconds, left=way.left[left])
            if not len(left):
                self.offer(joined(further.splits))
                continue
            later = rest.part(left)
            bound_s = seconds + quick_bound_s(self.costs, later, micro_batches=fewest_micro_batches(self.costs, later))
            yield bound_s, further

    def _close(self, way: Way) -> None:
        """Split what is left into micro-batches of equal times."""
        rest = self.batch.part(way.left)
        micro_batches = fewest_micro_batches(self.costs, rest)
        bound_s = quick_bound_s(self.costs, rest, micro_batches=micro_batches)
        low = high = bound_s
        for excess in EXCESSES:
            high = bound_s * (1 + excess)
            if self._attempt(way, rest, high, micro_batches):
                break
            low = high
        else:
            return
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            if self._attempt(way, rest, middle, micro_batches):
                high = middle
            else:
                low = middle

    def _attempt(self, way: Way, rest: Batch, limit_s: float, micro_batches: int) -> bool:
        if way.seconds + limit_s >= self.known_s() or not self.spend(len(rest)):
            return False
        groups = packed(self.costs, rest, limit_s / micro_batches, micro_batches=micro_batches, fill=True)
        if groups is None:
            return False
        self.offer(joined((*way.splits, (shelved(self.costs, rest, groups, micro_batches), way.left))))
        return True
