"""A split without barriers that ends within a given time: best fit over nested blocks of ranks.

Ranks are cut into blocks of the largest degree, each of those into blocks of the next one, and so on. A rank works on
the groups of its blocks one after another, the largest first; ranks of a block have then all worked equally long when
its groups are due, so that none waits for another, and a rank is done after the sum of what its blocks have.

Sequences go, from the largest degree wanted down and from the longest load down, to the block of their degree that is
done last and still ends in time; where there is none, to one of the next larger degree. A block's sequences are groups
in turn where memory doesn't hold them together, each with a fixed part.
"""

from bisect import bisect_left, bisect_right, insort

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.group_costs import GroupCosts

# Blocks looked at for one whose last group has room for the tokens too.
MOST_LOOKED_AT = 48


def free_packed(costs: GroupCosts, batch: Batch, wanted: IntArray, limit_s: float) -> tuple[IntArray, IntArray] | None:
    """Give the degree and the block of each sequence [sequences], None where no split within `limit_s` is found.

    wanted: the degree that each sequence goes to first, at which it alone ends in time.
    """
    blocks = _Blocks(costs, limit_s)
    degree, block = np.empty(len(batch), dtype=np.int64), np.empty(len(batch), dtype=np.int64)
    tokens, load_s = batch.tokens.tolist(), batch.load_s.tolist()
    for at in range(len(costs.degrees) - 1, -1, -1):
        mine = np.flatnonzero(wanted == at)
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
    return degree, block


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
        self.room = [[0] * (costs.ranks // degree) for degree in self.degrees]
        self.at = len(self.degrees) - 1
        self.done_s: FloatArray = np.zeros(costs.ranks // self.degrees[-1])
        self.opened: list[tuple[float, int]] = []
        self.closed: list[tuple[float, int]] = []

    def enter(self, at: int) -> None:
        """Cut blocks into those of a smaller degree."""
        times = self.degrees[self.at] // self.degrees[at]
        done_s = np.zeros(self.ranks // self.degrees[at])
        done_s[: times * len(self.done_s)] = np.repeat(self.done_s, times)
        self.at, self.done_s = at, done_s
        order = np.argsort(done_s, kind="stable")
        self.opened, self.closed = [], list(zip(done_s[order].tolist(), order.tolist(), strict=True))

    def put(self, load_s: float, tokens: int) -> int:
        """Add a sequence to a block of the present degree and give its number; -1 where none fits."""
        opened, room = self.opened, self.room[self.at]
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
        self.room[self.at][number] = room
        self.done_s[number] = done_s
        insort(self.opened if room > 0 else self.closed, (done_s, number))

    def put_above(self, degree: int, load_s: float, tokens: int) -> int:
        """Add a sequence to a block of a larger degree and give its number; -1 where none fits."""
        times = self.degrees[degree] // self.degrees[self.at]
        whole = self.ranks // self.degrees[degree]
        done_s = self.done_s[: whole * times].reshape(whole, times).max(axis=1)
        limit_s = self.limit_s - load_s
        order = np.flatnonzero(done_s <= limit_s)
        order = order[np.argsort(-done_s[order], kind="stable")]
        room = self.room[degree]
        for number in order[:MOST_LOOKED_AT].tolist():
            if room[number] >= tokens:
                room[number] -= tokens
                self._add(number, times, load_s)
                return int(number)
        load_s += self.fixed_s[degree]
        for number in order.tolist():
            if done_s[number] + load_s <= self.limit_s:
                room[number] = self.most_tokens[degree] - tokens
                self._add(number, times, load_s)
                return int(number)
        return -1

    def _add(self, block: int, times: int, load_s: float) -> None:
        room = self.room[self.at]
        for number in range(block * times, (block + 1) * times):
            done_s = float(self.done_s[number])
            among = self.opened if room[number] > 0 else self.closed
            del among[bisect_left(among, (done_s, number))]
            self.done_s[number] = done_s + load_s
            insort(among, (done_s + load_s, number))
