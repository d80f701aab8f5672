"""Groups for a batch that all end within a given time: best fit, the largest degrees first.

Each sequence wants the least degree at which it ends in time alone. From the largest such degree down, and within one
from the longest load down, a sequence goes to the group of its degree with the least time left that it fits into; else
a new group is opened, if there are ranks for it; else it goes to a larger group. Several micro-batches of the same
length are one problem with as many times the ranks: descending powers of two leave no gap at their borders.
"""

from bisect import bisect_right, insort
from dataclasses import dataclass, field

import numpy as np

from meshwright.costmodels.layout import BoolArray, IntArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.group_costs import GroupCosts

# Groups looked at for one that has room for the tokens too, before a larger degree is.
MOST_LOOKED_AT = 48


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Groups:
    """Groups of a step.

    degree: the index of each group's degree [groups]. group: of each sequence [sequences]. micro_batch: of each group
    [groups].
    """

    degree: IntArray
    group: IntArray
    micro_batch: IntArray


@dataclass(slots=True)
class _Open:
    """Groups of one degree that still have room: (load in seconds, group), ascending."""

    loads: list[tuple[float, int]] = field(default_factory=list)


def packed(
    costs: GroupCosts, batch: Batch, limit_s: float, *, micro_batches: int = 1, degrees: BoolArray | None = None
) -> Groups | None:
    """Give groups that each take at most `limit_s`, None where they aren't found.

    micro_batches: of so many micro-batches together; which one each group is in isn't said yet (all 0).
    degrees: which may be used [degrees]; all by default.
    """
    fits = batch.alone_s <= limit_s
    if degrees is not None:
        fits &= degrees[:, np.newaxis]
    if not fits.any(axis=0).all():
        return None
    wanted = fits.argmax(axis=0)
    load_s = batch.load_s[wanted, np.arange(len(batch))]
    order = np.lexsort((-batch.tokens, -load_s, -wanted))
    return _Packer(costs, batch, limit_s, micro_batches=micro_batches, degrees=degrees).run(order, wanted)


class _Packer:
    def __init__(
        self, costs: GroupCosts, batch: Batch, limit_s: float, *, micro_batches: int, degrees: BoolArray | None
    ) -> None:
        self.batch = batch
        self.degrees = costs.degrees.tolist()
        self.used_degrees = list(range(len(self.degrees)))
        if degrees is not None:
            self.used_degrees = np.flatnonzero(degrees).tolist()
        self.room = [limit_s - fixed for fixed in costs.fixed_s.tolist()]
        self.most_tokens = costs.most_tokens.tolist()
        self.places = [micro_batches * (costs.ranks // degree) * degree for degree in self.degrees]
        self.others = [self._others(rows, limit_s) for rows in costs.pieces.tolist()]
        self.open = [_Open() for _ in self.degrees]
        self.tokens: list[int] = []
        self.work: list[float] = []
        self.degree: list[int] = []
        self.used = 0
        self.fewest = int(batch.tokens.min())

    @staticmethod
    def _others(rows: list[list[float]], limit_s: float) -> list[tuple[float, float, float]]:
        """Give the pieces beside the first that can count where the first is within the limit."""
        first = rows[0]
        return [
            (work, token, limit_s - fixed)
            for work, token, fixed in rows[1:]
            if work > first[0] or token > first[1] or fixed > first[2]
        ]

    def run(self, order: IntArray, wanted: IntArray) -> Groups | None:
        tokens, work = self.batch.tokens[order].tolist(), self.batch.work_s[order].tolist()
        loads = self.batch.load_s[:, order].T.tolist()
        group = []
        for load, count, attention, degree in zip(loads, tokens, work, wanted[order].tolist(), strict=True):
            place = self._place(degree, load, count, attention)
            if place is None:
                return None
            group.append(place)
        of_sequence = np.empty(len(group), dtype=np.int64)
        of_sequence[order] = group
        of_group = np.array(self.degree, dtype=np.int64)
        return Groups(degree=of_group, group=of_sequence, micro_batch=np.zeros(len(of_group), dtype=np.int64))

    def _place(self, wanted: int, load: list[float], count: int, attention: float) -> int | None:
        for degree in self.used_degrees:
            if degree < wanted:
                continue
            found = self._best_fit(degree, load[degree], count, attention)
            if found is not None:
                return found
            size = self.degrees[degree]
            if degree == wanted and self.used + size <= self.places[degree]:
                return self._opened(degree, load[degree], count, attention)
        return None

    def _opened(self, degree: int, load: float, count: int, attention: float) -> int:
        number = len(self.degree)
        self.used += self.degrees[degree]
        self.degree.append(degree)
        self.tokens.append(count)
        self.work.append(attention)
        if self.most_tokens[degree] - count >= self.fewest:
            insort(self.open[degree].loads, (load, number))
        return number

    def _best_fit(self, degree: int, load: float, count: int, attention: float) -> int | None:
        loads = self.open[degree].loads
        at = bisect_right(loads, (self.room[degree] - load, len(self.degree)))
        for place in range(at - 1, max(at - 1 - MOST_LOOKED_AT, -1), -1):
            old, number = loads[place]
            tokens = self.tokens[number] + count
            if tokens > self.most_tokens[degree] or not self._within(degree, self.work[number] + attention, tokens):
                continue
            del loads[place]
            self.tokens[number] = tokens
            self.work[number] += attention
            if self.most_tokens[degree] - tokens >= self.fewest:
                insort(loads, (old + load, number))
            return number
        return None

    def _within(self, degree: int, work: float, tokens: int) -> bool:
        return all(a * work + b * tokens <= room for a, b, room in self.others[degree])
