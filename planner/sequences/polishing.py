"""Moves, swaps and groups of another degree, until the ranks that are done last can't be done sooner.

Of the ranks that end a step (without barriers) or a micro-batch (with them), the groups that they have give a sequence
to another group, swap one with it, or give one to a group of its own of any degree, whichever leaves the later of both
the earliest. Groups with the most time left are looked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.free_running import turns_of_blocks
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.mode import Mode
from meshwright.planner.sequences.split import Split, placed

# Sequences to swap with and groups to move to that are looked at, and sequences of the last groups.
SWAPPED = 192
GROUPS = 32
MOVED = 24
# By how much the end of a step has to come sooner for a change to be one, relative.
PROGRESS = 1e-6
# A step takes about so many sequences' worth of changes, and no more of them than this.
EFFORT = 16_000
MOST_STEPS = 20


def polished(costs: GroupCosts, batch: Batch, split: Split, mode: Mode) -> Split:
    """Give a split no slower than the given one, which without barriers is of nested blocks."""
    steps = min(EFFORT // (len(batch) + costs.ranks), MOST_STEPS)
    if not steps:
        return split
    state = _State.of(costs, batch, split, free=mode is Mode.FREE)
    stuck: set[int] = set()
    for _ in range(steps):
        turn = state.longest_turn(stuck)
        if turn is None:
            break
        if not state.improve(turn):
            stuck.add(turn)
    return state.split()


@dataclass(slots=True, kw_only=True)
class _Change:
    """A sequence goes to a group, and another one back (-1 for none).

    score_s: how much later than now the end of both comes. degree, first_rank, turn: of the group where it is new (to
    is -1).
    """

    score_s: float
    item: int
    to: int = -1
    back: int = -1
    degree: int = -1
    first_rank: int = 0
    turn: int = 0


@dataclass(slots=True, kw_only=True)
class _State:
    """Groups as they are.

    end_s: when ranks are done, of one micro-batch [ranks] (without barriers). top_s: when the last of a group's ranks
    is [groups].
    """

    costs: GroupCosts
    batch: Batch
    free: bool
    degree: IntArray
    first_rank: IntArray
    turn: IntArray
    group: IntArray
    seconds: FloatArray
    top_s: FloatArray
    end_s: FloatArray

    @classmethod
    def of(cls, costs: GroupCosts, batch: Batch, split: Split, *, free: bool) -> Self:
        """Make one of a split."""
        seconds = split.seconds(costs, batch)
        state = cls(
            costs=costs,
            batch=batch,
            free=free,
            degree=split.degree.copy(),
            first_rank=split.first_rank.copy(),
            turn=np.zeros_like(split.degree) if free else split.micro_batch.copy(),
            group=split.group.copy(),
            seconds=seconds,
            top_s=seconds.copy(),
            end_s=np.zeros(costs.ranks),
        )
        if free:
            for group in range(len(seconds)):
                state.end_s[state.ranks(group)] += seconds[group]
            for group in range(len(seconds)):
                state.top_s[group] = state.end_s[state.ranks(group)].max()
        return state

    def ranks(self, group: int) -> slice:
        """Give a group's ranks."""
        first = int(self.first_rank[group])
        return slice(first, first + int(self.costs.degrees[self.degree[group]]))

    def split(self) -> Split:
        """Give the split that it has come to."""
        used, group = np.unique(self.group, return_inverse=True)
        degree, first_rank = self.degree[used], self.first_rank[used]
        if not self.free:
            return placed(self.costs, degree, group, np.unique(self.turn[used], return_inverse=True)[1])
        turn = turns_of_blocks(self.costs, degree, first_rank)
        return Split(degree=degree, first_rank=first_rank, micro_batch=turn, group=group)

    def longest_turn(self, stuck: set[int]) -> int | None:
        """Give the longest micro-batch that isn't stuck, None where all are."""
        longest_s = self.turn_s()
        order = [turn for turn in np.argsort(-longest_s, kind="stable").tolist() if turn not in stuck]
        return order[0] if order else None

    def turn_s(self) -> FloatArray:
        """Give when each micro-batch is done [micro-batches]."""
        longest_s = np.zeros(int(self.turn.max()) + 1)
        np.maximum.at(longest_s, self.turn, self.top_s)
        return longest_s

    def improve(self, turn: int) -> bool:
        """Make the best change to the groups that end a micro-batch; false where none helps."""
        limits_s = self.turn_s()
        last = np.flatnonzero(self.turn == turn)
        last = last[self.top_s[last].argmax()]
        if self.free:
            rank = int(self.end_s.argmax())
            size = self.costs.degrees[self.degree]
            last = np.flatnonzero((self.first_rank <= rank) & (rank < self.first_rank + size))
        items = np.flatnonzero(np.isin(self.group, last))
        if not len(items):  # the micro-batch has come to nothing
            return False
        if len(items) > MOVED:
            items = items[np.linspace(0, len(items) - 1, MOVED).astype(np.int64)]
        limit_s = float(limits_s[turn])
        changes = [
            self._swap(items, limits_s, turn),
            self._move(items, limits_s, turn),
            self._new(items, limits_s, turn),
        ]
        best = min(changes, key=lambda change: change.score_s)
        if best.score_s < -PROGRESS * limit_s and self._done(best, limit_s):
            return True
        return any(self._widened(group, limit_s) for group in np.ravel(last).tolist())

    def _room_s(self, limits_s: FloatArray) -> FloatArray:
        """Give how much longer each group may take [groups], nothing for those without sequences."""
        count = np.bincount(self.group, minlength=len(self.degree))
        return np.where(count > 0, limits_s[self.turn] - self.top_s, -np.inf)

    def _swap(self, items: IntArray, limits_s: FloatArray, turn: int) -> _Change:
        room_s = self._room_s(limits_s)[self.group]
        others = np.arange(len(room_s))
        if len(others) > SWAPPED:
            others = np.argpartition(-room_s, SWAPPED)[:SWAPPED]
        own, to = self.group[items], self.group[others]
        load_s, tokens = self.batch.load_s, self.batch.tokens
        own_degree, to_degree = self.degree[own], self.degree[to]
        lighter_s = load_s[own_degree, items][:, np.newaxis] - load_s[own_degree[:, np.newaxis], others]
        heavier_s = load_s[to_degree, items[:, np.newaxis]] - load_s[to_degree, others]
        score_s = self._score_s(-lighter_s, heavier_s - room_s[others], self.turn[to] == turn)
        more = tokens[items][:, np.newaxis] - tokens[others]
        held = self._tokens()
        fits = held[to] + more <= self.costs.most_tokens[to_degree]
        fits &= (held[own])[:, np.newaxis] - more <= self.costs.most_tokens[own_degree][:, np.newaxis]
        score_s = np.where(fits & self._apart(own, to), score_s, np.inf)
        at, other = np.unravel_index(int(score_s.argmin()), score_s.shape)
        return _Change(
            score_s=float(score_s[at, other]), item=int(items[at]), to=int(to[other]), back=int(others[other])
        )

    def _move(self, items: IntArray, limits_s: FloatArray, turn: int) -> _Change:
        room_s = self._room_s(limits_s)
        to = np.arange(len(room_s))
        if len(to) > GROUPS:
            to = np.argpartition(-room_s, GROUPS)[:GROUPS]
        own, degree = self.group[items], self.degree[to]
        load_s, tokens = self.batch.load_s, self.batch.tokens
        lighter_s = load_s[self.degree[own], items][:, np.newaxis]
        heavier_s = load_s[degree, items[:, np.newaxis]]
        score_s = self._score_s(-lighter_s, heavier_s - room_s[to], self.turn[to] == turn)
        fits = self._tokens()[to] + tokens[items][:, np.newaxis] <= self.costs.most_tokens[degree]
        score_s = np.where(fits & self._apart(own, to), score_s, np.inf)
        at, place = np.unravel_index(int(score_s.argmin()), score_s.shape)
        return _Change(score_s=float(score_s[at, place]), item=int(items[at]), to=int(to[place]))

    def _new(self, items: IntArray, limits_s: FloatArray, turn: int) -> _Change:
        """Give the best group of its own for a sequence, of any degree, behind the ranks that are done first."""
        best = _Change(score_s=np.inf, item=int(items[0]))
        own = self.group[items]
        lighter_s = np.where(
            np.bincount(self.group)[own] > 1,
            self.batch.load_s[self.degree[own], items],
            self.seconds[own],
        )
        for degree, first_rank, of_turn, room_s in self._places(limits_s):
            same = np.full(len(items), of_turn == turn)
            score_s = self._score_s(-lighter_s, self.batch.alone_s[degree, items] - room_s, same)
            at = int(score_s.argmin())
            if score_s[at] < best.score_s:
                best = _Change(
                    score_s=float(score_s[at]),
                    item=int(items[at]),
                    degree=degree,
                    first_rank=first_rank,
                    turn=of_turn,
                )
        return best

    def _places(self, limits_s: FloatArray) -> Iterator[tuple[int, int, int, float]]:
        """Give degree, first rank and micro-batch of groups that might be, and the seconds that they have."""
        degrees = self.costs.degrees.tolist()
        if self.free:
            last = int(self.end_s.argmax())
            for at, size in enumerate(degrees):
                blocks = len(self.end_s) // size
                end_s = self.end_s[: blocks * size].reshape(blocks, size).max(axis=1)
                first = int(end_s.argmin())
                if first != last // size:
                    yield at, first * size, 0, float(limits_s[0] - end_s[first])
            return
        used = np.bincount(self.group, minlength=len(self.degree)) > 0
        taken = np.bincount(self.turn[used], self.costs.degrees[self.degree[used]], len(limits_s))
        for of_turn, ranks in enumerate((self.costs.ranks - taken).tolist()):
            for at, size in enumerate(degrees):
                if size <= ranks:
                    yield at, 0, of_turn, float(limits_s[of_turn])

    def _score_s(self, own_s: FloatArray, to_s: FloatArray, same: BoolArray) -> FloatArray:
        """Give how much later the end of two groups comes: in another micro-batch it only has to come in time."""
        return np.maximum(own_s, np.where(same, to_s, np.where(to_s <= 0, -np.inf, np.inf)))

    def _apart(self, own: IntArray, to: IntArray) -> BoolArray:
        """Tell whether groups have no rank in common [own, to]."""
        if not self.free:
            return np.asarray(own[:, np.newaxis] != to)
        first, end = self.first_rank, self.first_rank + self.costs.degrees[self.degree]
        return np.asarray((first[to] >= end[own][:, np.newaxis]) | (end[to] <= first[own][:, np.newaxis]))

    def _tokens(self) -> FloatArray:
        return np.bincount(self.group, self.batch.tokens, len(self.degree)).astype(np.float64)

    def _done(self, change: _Change, limit_s: float) -> bool:
        """Make a change, and undo it where a piece beside the first makes it worse."""
        own, to = int(self.group[change.item]), change.to
        if to < 0:
            to = len(self.degree)
            self.degree = np.append(self.degree, change.degree)
            self.first_rank = np.append(self.first_rank, change.first_rank)
            self.turn = np.append(self.turn, change.turn)
            self.seconds, self.top_s = np.append(self.seconds, 0.0), np.append(self.top_s, 0.0)
        before_s = self.turn_s()
        for undo in (False, True):
            self.group[change.item] = own if undo else to
            if change.back >= 0:
                self.group[change.back] = to if undo else own
            self._count_again(own)
            self._count_again(to)
            if undo:
                return False
            ends_s = max(self.top_s[own], self.top_s[to] if self.turn[to] == self.turn[own] else 0.0)
            if ends_s < limit_s and self.top_s[to] <= before_s[self.turn[to]]:
                return True
        return True

    def _widened(self, group: int, limit_s: float) -> bool:
        """Give a group the next larger degree, if its ranks then end sooner; false where they don't."""
        degree, first_rank = int(self.degree[group]), int(self.first_rank[group])
        if degree + 1 == len(self.costs.degrees) or (not self.free and self._idle(group) < self._more(degree)):
            return False
        size = int(self.costs.degrees[degree + 1])
        block = first_rank // size
        if (block + 1) * size > self.costs.ranks:  # the last ranks are no whole block of it
            return False
        self._place(group, degree + 1, block)
        if self.top_s[group] < limit_s * (1 - PROGRESS):
            return True
        self._place(group, degree, first_rank // int(self.costs.degrees[degree]))
        return False

    def _more(self, degree: int) -> int:
        return int(self.costs.degrees[degree + 1] - self.costs.degrees[degree])

    def _idle(self, group: int) -> int:
        """Give how many ranks have no group in a group's micro-batch."""
        used = np.bincount(self.group, minlength=len(self.degree)) > 0
        beside = used & (self.turn == self.turn[group])
        return self.costs.ranks - int(self.costs.degrees[self.degree[beside]].sum())

    def _place(self, group: int, degree: int, block: int) -> None:
        if self.free:
            self.end_s[self.ranks(group)] -= self.seconds[group]
            self._see_ends(self.ranks(group))
        self.seconds[group] = 0.0
        self.degree[group], self.first_rank[group] = degree, block * int(self.costs.degrees[degree])
        self._count_again(group)

    def _count_again(self, group: int) -> None:
        """Find a group's seconds and the ends that come of them."""
        mine = np.flatnonzero(self.group == group)
        work_s, tokens = self.batch.work_s[mine].sum(), float(self.batch.tokens[mine].sum())
        taken_s = self.costs.group_s(self.degree[group], np.asarray(work_s), np.asarray(tokens))
        seconds = float(taken_s) if len(mine) else 0.0
        if not self.free:
            self.seconds[group] = self.top_s[group] = seconds
            return
        ranks = self.ranks(group)
        self.end_s[ranks] += seconds - self.seconds[group]
        self.seconds[group] = seconds
        self._see_ends(ranks)

    def _see_ends(self, ranks: slice) -> None:
        """See when the groups are done that have any of these ranks."""
        size = self.costs.degrees[self.degree]
        for other in np.flatnonzero((self.first_rank < ranks.stop) & (self.first_rank + size > ranks.start)).tolist():
            self.top_s[other] = self.end_s[self.ranks(other)].max()
