"""Groups for a batch that all end within a given time: best fit, the largest degrees first.

Each sequence wants the least degree at which it ends in time alone. From the largest such degree down, and within one
from the longest load down, a sequence goes to the group of its degree with the least time left that it fits into; else
a new group is opened, if there are ranks for it; else it goes to a larger group. Several micro-batches of the same
length are one problem with as many times the ranks: descending powers of two leave no gap at their borders.
"""

from bisect import bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from meshwright.costmodels.layout import BoolArray, IntArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.group_costs import GroupCosts

# Groups looked at for one that has room for the tokens too, before a larger degree is.
MOST_LOOKED_AT = 16


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
    costs: GroupCosts,
    batch: Batch,
    limit_s: float,
    *,
    micro_batches: int = 1,
    degrees: BoolArray | None = None,
    fill: bool = False,
) -> Groups | None:
    """Give groups that each take at most `limit_s`, None where they aren't found.

    micro_batches: of so many micro-batches together; which one each group is in isn't said yet (all 0).
    degrees: which may be used [degrees]; all by default. fill: whether groups are filled up with sequences that want
    smaller ones before those are given groups of their own.
    """
    wanted = _wanted(batch, limit_s, degrees)
    if (wanted < 0).any():
        return None
    return _Packer(costs, batch, limit_s, micro_batches=micro_batches, degrees=degrees).run(wanted, fill=fill)


def packed_part(costs: GroupCosts, batch: Batch, limit_s: float) -> Groups:
    """Give groups of one micro-batch, of at most `limit_s` each, of as much of a batch as they have room for.

    The longest sequences go first; those that are left out have -1 for their group.
    """
    wanted = _wanted(batch, limit_s, None)
    return _Packer(costs, batch, limit_s, micro_batches=1, degrees=None).run_part(wanted)


def _wanted(batch: Batch, limit_s: float, degrees: BoolArray | None) -> IntArray:
    """Give the least degree at which each sequence alone ends in time, -1 where there is none."""
    fits = batch.alone_s <= limit_s
    if degrees is not None:
        fits &= degrees[:, np.newaxis]
    return np.asarray(np.where(fits.any(axis=0), fits.argmax(axis=0), -1))


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

    def run(self, wanted: IntArray, *, fill: bool) -> Groups | None:
        group = [-1] * len(wanted)
        for item, place in self._places(wanted, fill=fill):
            if place is None:
                return None
            group[item] = place
        return self._groups(group)

    def run_part(self, wanted: IntArray) -> Groups:
        group = [-1] * len(wanted)
        for item, place in self._places(wanted, fill=True):
            if place is not None:
                group[item] = place
        return self._groups(group)

    def _places(self, wanted: IntArray, *, fill: bool) -> Iterator[tuple[int, int | None]]:
        """Give each sequence's group, None where there is no room for it; none of those that want no degree (-1)."""
        batch = self.batch
        tokens, work = batch.tokens.tolist(), batch.work_s.tolist()
        left = wanted >= 0
        for degree in self.used_degrees[::-1]:
            mine = np.flatnonzero(left & (wanted == degree))
            if not len(mine):
                continue
            mine = mine[np.lexsort((-batch.tokens[mine], -batch.load_s[degree, mine]))]
            loads = batch.load_s[:, mine].T.tolist()
            for item, load in zip(mine.tolist(), loads, strict=True):
                yield item, self._place(degree, load, tokens[item], work[item])
            left[mine] = False
            smaller = np.flatnonzero(left)
            if fill and len(smaller):
                for item, place in self._fill(degree, smaller):
                    left[item] = False
                    yield item, place

    def _fill(self, degree: int, items: IntArray) -> Iterator[tuple[int, int]]:
        """Fill the groups of a degree up, each with the longest that it has time for, and give those with its number.

        What groups of more ranks exchange costs long sequences less than it does short ones, for the time they take.
        """
        batch, room_s, most = self.batch, self.room[degree], self.most_tokens[degree]
        items = items[np.argsort(batch.load_s[degree, items], kind="stable")]
        loads, numbers = batch.load_s[degree, items].tolist(), items.tolist()
        tokens, work = batch.tokens[items].tolist(), batch.work_s[items].tolist()
        filled = []
        for old, group in self.open[degree].loads:
            load, place = old, len(loads)
            looked = 0
            while loads and looked < MOST_LOOKED_AT:
                place = min(bisect_right(loads, room_s - load), place) - 1
                if place < 0:
                    break
                looked += 1
                count, attention = self.tokens[group] + tokens[place], self.work[group] + work[place]
                if count > most or not self._within(degree, attention, count):
                    continue
                self.tokens[group], self.work[group] = count, attention
                load += loads.pop(place)
                del tokens[place], work[place]
                yield numbers.pop(place), group
            filled.append((load, group))
        self.open[degree].loads = sorted(filled)

    def _groups(self, group: list[int]) -> Groups:
        of_group = np.array(self.degree, dtype=np.int64)
        return Groups(degree=of_group, group=np.array(group), micro_batch=np.zeros(len(of_group), dtype=np.int64))

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
        place = at - 1
        if place < 0:
            return None
        if not self._takes(degree, loads[place][1], count, attention):
            place = self._place_with_room(degree, at, count, attention)
            if place < 0:
                return None
        old, number = loads.pop(place)
        self.tokens[number] += count
        self.work[number] += attention
        if self.most_tokens[degree] - self.tokens[number] >= self.fewest:
            insort(loads, (old + load, number))
        return number

    def _place_with_room(self, degree: int, end: int, count: int, attention: float) -> int:
        """Give the place of a group that has room for tokens too, of the fullest, then the emptiest.

        Where the emptiest has none there is none: -1.
        """
        loads = self.open[degree].loads
        if not self._takes(degree, loads[0][1], count, attention):
            return -1
        fullest = range(end - 2, max(end - 2 - MOST_LOOKED_AT, -1), -1)
        emptiest = range(min(end - 1 - len(fullest), MOST_LOOKED_AT))
        for place in chain(fullest, emptiest):
            if self._takes(degree, loads[place][1], count, attention):
                return place
        return -1

    def _takes(self, degree: int, number: int, count: int, attention: float) -> bool:
        tokens = self.tokens[number] + count
        if tokens > self.most_tokens[degree]:
            return False
        return not self.others[degree] or self._within(degree, self.work[number] + attention, tokens)

    def _within(self, degree: int, work: float, tokens: int) -> bool:
        return all(a * work + b * tokens <= room for a, b, room in self.others[degree])
