"""A split without barriers that ends within a given time: best fit over nested blocks of ranks.

Ranks are cut into blocks of the largest degree, each of those into blocks of the next one, and so on. A rank works on
the groups of its blocks one after another, the largest first; ranks of a block have then all worked equally long when
its groups are due, so that none waits for another, and a rank is done after the sum of what its blocks have.

Sequences go, from the largest degree wanted down and from the longest load down, to the block of their degree that is
done last and still ends in time; where there is none, to one of the next larger degree. A block's sequences are groups
in turn where memory doesn't hold them together, each with a fixed part.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.group_costs import GroupCosts

# Blocks looked at for one whose last group has room for the tokens too.
MOST_LOOKED_AT = 48


def free_packed(
    costs: GroupCosts, batch: Batch, wanted: IntArray, limit_s: float, *, fill: float = 0.0
) -> tuple[IntArray, IntArray] | None:
    """Give the degree and the block of each sequence [sequences], None where no split within `limit_s` is found.

    wanted: the degree that each sequence goes to first, at which it alone ends in time. fill: groups with little time
    left take sequences of smaller degrees until it's gone, where those in groups of their own would take longer with
    so many times the fixed part of those; 0 for never.
    """
    blocks = _Blocks(costs, limit_s)
    degree, block = np.full(len(batch), -1), np.full(len(batch), -1)
    tokens, load_s = batch.tokens.tolist(), batch.load_s.tolist()
    for at in range(len(costs.degrees) - 1, -1, -1):
        mine = np.flatnonzero((wanted == at) & (degree < 0))
        if not len(mine):
            continue
        blocks.enter(at)
        for item in mine[np.lexsort((-batch.tokens[mine], -batch.load_s[at, mine]))].tolist():
            found, up = blocks.put(load_s[at][item], tokens[item]), at
            while found < 0:
                up += 1
                if up == len(costs.degrees):
                    return None
                found = blocks.put_above(up, load_s[up][item], tokens[item])
            degree[item], block[item] = up, found
        if fill:
            smaller = np.flatnonzero((wanted < at) & (degree < 0))
            for item, found in blocks.fill(_Pool.of(costs, batch, wanted, smaller, at, fill)):
                degree[item], block[item] = at, found
    return degree, block


@dataclass(slots=True)
class _Pool:
    """Sequences of smaller degrees, by what they take in a group of this one, ascending.

    little_s: up to how much time left filling a group is better than groups of their own: where what they take longer
    is less than those groups' fixed part.
    """

    load_s: list[float]
    tokens: list[int]
    item: list[int]
    little_s: float

    @classmethod
    def of(cls, costs: GroupCosts, batch: Batch, wanted: IntArray, items: IntArray, at: int, fill: float) -> Self:
        """Make the pool of some sequences."""
        items = items[np.argsort(batch.load_s[at, items], kind="stable")]
        load_s = batch.load_s[at, items]
        area_s = float((batch.load_s[wanted[items], items] * costs.degrees[wanted[items]]).sum())
        here_s = float(load_s.sum() * costs.degrees[at])
        longer = 1.0 - area_s / here_s if here_s else 0.0
        least_s = fill * float(costs.fixed_s[wanted[items]].min(initial=np.inf))
        return cls(
            load_s=load_s.tolist(),
            tokens=batch.tokens[items].tolist(),
            item=items.tolist(),
            little_s=least_s / longer if longer > 0 else float("inf"),
        )

    def take(self, left_s: float, room: int) -> tuple[float, int, int] | None:
        """Take out the sequence with the longest load that fits, and give load, tokens and number."""
        end = bisect_right(self.load_s, left_s)
        for place in range(end - 1, max(end - 1 - MOST_LOOKED_AT, -1), -1):
            if self.tokens[place] <= room:
                return self.load_s.pop(place), self.tokens.pop(place), self.item.pop(place)
        return None


class _Blocks:
    """Seconds that blocks of the present degree have, and the room for tokens in the last group of all blocks.

    Blocks are kept sorted by their seconds: those that have a group of this degree with room, and those that would need
    one more.
    """

    def __init__(self, costs: GroupCosts, limit_s: float) -> None:
        self.degrees = costs.degrees.tolist()
        self.ranks = costs.ranks
        self.limit_s = limit_s
        self.fixed_s = costs.fixed_s.tolist()
        self.most_tokens = costs.most_tokens.tolist()
        self.above = [np.zeros(costs.ranks // degree, dtype=np.int64) for degree in self.degrees]
        self.room: list[int] = []
        self.latest: dict[int, FloatArray] = {}
        self.at = len(self.degrees) - 1
        self.done_s: FloatArray = np.zeros(costs.ranks // self.degrees[-1])
        self.opened: list[tuple[float, int]] = []
        self.closed: list[tuple[float, int]] = []

    def enter(self, at: int) -> None:
        """Cut blocks into those of a smaller degree."""
        if self.room:
            self.above[self.at][:] = self.room
        self.room = [0] * (self.ranks // self.degrees[at])
        times = self.degrees[self.at] // self.degrees[at]
        done_s = np.zeros(self.ranks // self.degrees[at])
        done_s[: times * len(self.done_s)] = np.repeat(self.done_s, times)
        self.at, self.done_s, self.latest = at, done_s, {}
        order = np.argsort(done_s, kind="stable")
        self.opened, self.closed = [], list(zip(done_s[order].tolist(), order.tolist(), strict=True))

    def put(self, load_s: float, tokens: int) -> int:
        """Add a sequence to a block of the present degree and give its number; -1 where none fits."""
        opened, room = self.opened, self.room
        end = bisect_right(opened, (self.limit_s - load_s, self.ranks))
        for place in range(end - 1, max(end - 1 - MOST_LOOKED_AT, -1), -1):
            done_s, number = opened[place]
            if room[number] >= tokens:
                del opened[place]
                self._put(number, done_s + load_s, room[number] - tokens)
                return number
        load_s += self.fixed_s[self.at]
        place = bisect_right(self.closed, (self.limit_s - load_s, self.ranks)) - 1
        if place < 0:
            return self._reopened(load_s, tokens)
        done_s, number = self.closed.pop(place)
        self._put(number, done_s + load_s, self.most_tokens[self.at] - tokens)
        return number

    def _reopened(self, load_s: float, tokens: int) -> int:
        """Start a further group in the block with the most seconds that still ends in time."""
        place = bisect_right(self.opened, (self.limit_s - load_s, self.ranks)) - 1
        if place < 0:
            return -1
        done_s, number = self.opened.pop(place)
        self._put(number, done_s + load_s, self.most_tokens[self.at] - tokens)
        return number

    def _put(self, number: int, done_s: float, room: int) -> None:
        self.room[number] = room
        self._note(number, done_s)
        insort(self.opened if room > 0 else self.closed, (done_s, number))

    def fill(self, pool: _Pool) -> Iterator[tuple[int, int]]:
        """Fill blocks of the present degree with little time left, and give each sequence with its block."""
        opened, self.opened = self.opened, []
        for first_s, number in reversed(opened):
            done_s, room = first_s, self.room[number]
            while room > 0 and self.limit_s - done_s <= pool.little_s:
                taken = pool.take(self.limit_s - done_s, room)
                if taken is None:
                    break
                done_s, room = done_s + taken[0], room - taken[1]
                yield taken[2], number
            self._put(number, done_s, room)

    def put_above(self, degree: int, load_s: float, tokens: int) -> int:
        """Add a sequence to a block of a larger degree and give its number; -1 where none fits."""
        times = self.degrees[degree] // self.degrees[self.at]
        done_s = self._latest(times)
        room = self.above[degree]
        number = int(np.where((done_s <= self.limit_s - load_s) & (room >= tokens), done_s, -1.0).argmax())
        if room[number] >= tokens and done_s[number] + load_s <= self.limit_s:
            room[number] -= tokens
            self._add(number, times, load_s)
            return number
        load_s += self.fixed_s[degree]
        number = int(np.where(done_s <= self.limit_s - load_s, done_s, -1.0).argmax())
        if done_s[number] + load_s > self.limit_s:
            return -1
        room[number] = self.most_tokens[degree] - tokens
        self._add(number, times, load_s)
        return number

    def _latest(self, times: int) -> FloatArray:
        """Give when the last of each `times` neighbours of the present blocks is done."""
        if times == 1:
            return self.done_s
        if times not in self.latest:
            whole = len(self.done_s) // times
            self.latest[times] = self.done_s[: whole * times].reshape(whole, times).max(axis=1)
        return self.latest[times]

    def _note(self, number: int, done_s: float) -> None:
        """Note a block's new time wherever the latest of its neighbours is kept."""
        self.done_s[number] = done_s
        for times, latest in self.latest.items():
            above = number // times
            if above < len(latest) and latest[above] < done_s:
                latest[above] = done_s

    def _add(self, block: int, times: int, load_s: float) -> None:
        room = self.room
        for number in range(block * times, (block + 1) * times):
            done_s = float(self.done_s[number])
            among = self.opened if room[number] > 0 else self.closed
            del among[bisect_left(among, (done_s, number))]
            self._note(number, done_s + load_s)
            insort(among, (done_s + load_s, number))
