"""What parties that train replicas of their own take for a share of the batch, and the shares with the least step.

A party (an island, or a chain of them) with layout j that takes M micro-batches of q_j sequences is done after
a_j + c_j M seconds, with what of the exchange of gradients between parties it doesn't hide. By a time t it has done

    F(t) = max_j q_j M_j + q_j / 2^k,    M_j = floor((t - a_j) / c_j)

sequences, with M_j in multiples of the quantum of j, and the largest last micro-batch of b_j / 2^k sequences a replica
for which there is time, if any (of layouts whose quantum is 1). That rises with t, so that the least step of parties
1..G is the least t where

    F_1(t) + ... + F_G(t) >= B

found by halving; it is exact over the layouts that the laws are of. With R_i(t) no less than what any other layout of
party i is done with by t, the least t where sum max(F_i(t), R_i(t)) >= B is below no step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray

HALVINGS = 60
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """A step function: what is done by a time, [points], by ascending times; per_s: at least that many a second."""

    time_s: FloatArray
    done: FloatArray
    per_s: float

    def by(self, time_s: float) -> float:
        """Give what is done by a time, at most."""
        point = int(np.searchsorted(self.time_s, time_s, side="right")) - 1
        return max(float(self.done[point]) if point >= 0 else 0.0, self.per_s * time_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Laws:
    """The layouts of a party, arrays of shape [layouts].

    sequences: of one micro-batch of all replicas. quantum: micro-batches come in multiples of it.
    fixed_s, each_s: a and c of the law; exposed_s: of a, what of the exchange isn't hidden.
    tails_s: what a last micro-batch of a half, a quarter, ... takes, [halvings, layouts]; infinite where there is none.
    share: the sequences at which layouts were compared; rest_s: what any layout that isn't here takes for those at
    least, infinite where none is left. fastest: sequences a second that no layout exceeds. steps: what layouts that
    aren't here have done by a time at most, where that is known otherwise.
    """

    sequences: IntArray
    quantum: IntArray
    fixed_s: FloatArray
    each_s: FloatArray
    exposed_s: FloatArray
    tails_s: FloatArray
    share: float
    rest_s: float
    fastest: float
    steps: Rest | None = None

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def share_s(self) -> float:
        """Seconds for the share by the best layout, were micro-batches divisible; infinite where none fits."""
        return float((self.fixed_s + self.each_s * self.share / self.sequences).min(initial=np.inf))

    def micro_batches(self, time_s: float) -> IntArray:
        """Give how many micro-batches each layout has done by a time, [layouts]."""
        room = np.maximum(time_s - self.fixed_s, 0.0) / self.each_s
        counts = np.floor(room * (1 + ROUNDING)).astype(np.int64)
        return np.asarray(counts - counts % self.quantum)

    def sequences_done(self, time_s: float) -> IntArray:
        """Give the sequences that each layout has done by a time, [layouts]."""
        counts = self.micro_batches(time_s)
        left_s = time_s - self.fixed_s - self.each_s * counts
        tail = np.zeros(len(self), dtype=np.int64)
        for halving in reversed(range(len(self.tails_s))):
            fits = (self.tails_s[halving] <= left_s * (1 + ROUNDING)) & (counts > 0)
            tail = np.where(fits, self.sequences >> (halving + 1), tail)
        return np.asarray(self.sequences * counts + tail)

    def done(self, time_s: float) -> int:
        """Give F: the most sequences that a layout has done by a time."""
        return int(self.sequences_done(time_s).max(initial=0))

    def takes_s(self, layout: int, each: int, size: int) -> float:
        """Give the seconds of a layout whose busiest replica has so many sequences, in micro-batches of `size`."""
        count, last = divmod(each, size)
        if not count or not last or int(self.quantum[layout]) > 1:
            return float(self.fixed_s[layout] + self.each_s[layout] * -(-each // size))
        fitting = [
            float(seconds) for halving, seconds in enumerate(self.tails_s[:, layout]) if size >> (halving + 1) >= last
        ]
        tail_s = min([float(self.each_s[layout]), *fitting])
        return float(self.fixed_s[layout] + self.each_s[layout] * count + tail_s)

    def rest(self, time_s: float) -> float:
        """Give R: how many sequences a layout that isn't here has done by a time, at most.

        Before rest_s, no more than the share in proportion, as seconds a sequence don't rise with their number; after
        it, what the fastest rate adds.
        """
        if self.steps is not None:
            return min(self.steps.by(time_s), time_s * self.fastest)
        if not np.isfinite(self.rest_s):
            return 0.0
        return self.share * min(time_s / self.rest_s, 1.0) + max(time_s - self.rest_s, 0.0) * self.fastest


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """The least step of some parties: of each its layout, its sequences, and those of its busiest replica."""

    layout: tuple[int, ...]
    sequences: tuple[int, ...]
    busiest: tuple[int, ...]
    step_time_s: float


def best_shares(parties: Sequence[Laws], *, batch: int, sizes: Sequence[IntArray]) -> tuple[Shares | None, float]:
    """Give the shares of a batch with the least step, and a bound of all steps of all layouts.

    There are no shares where a party has no part by that time, or the batch can't be dealt.

    Args:
        parties: their laws.
        batch: sequences in all.
        sizes: sequences of one micro-batch of one replica, [layouts] each.

    """
    time_s = _least(lambda t: sum(own.done(t) for own in parties), batch)
    bound_s = least_s(parties, batch=batch)
    done = [own.sequences_done(time_s) for own in parties]
    picked = [int(np.lexsort([own.fixed_s, own.quantum, -count])[0]) for own, count in zip(parties, done, strict=True)]
    rows = list(zip(parties, sizes, done, picked, strict=True))
    units = [int(size[row] * own.quantum[row]) if own.quantum[row] > 1 else 1 for own, size, _, row in rows]
    dealt = _dealt([int(count[row]) for _, _, count, row in rows], units, batch)
    if dealt is None or not all(dealt):
        return None, bound_s
    busiest = [
        -(-share // (unit * int(own.sequences[row] // size[row]))) * unit
        for share, unit, (own, size, _, row) in zip(dealt, units, rows, strict=True)
    ]
    took = [own.takes_s(row, each, int(size[row])) for each, (own, size, _, row) in zip(busiest, rows, strict=True)]
    shares = Shares(layout=tuple(picked), sequences=tuple(dealt), busiest=tuple(busiest), step_time_s=max(took))
    return shares, min(bound_s, max(took))


def least_s(parties: Sequence[Laws], *, batch: int) -> float:
    """Give a bound of all steps of all layouts of some parties."""
    return _least(lambda t: sum(max(own.done(t), own.rest(t)) for own in parties), batch)


def _least(done: Callable[[float], float], batch: int) -> float:
    """Give the least time by which a batch is done, by halving."""
    low, high = 0.0, 1.0
    while done(high) < batch:
        low, high = high, 2.0 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if done(middle) >= batch else (middle, high)
    return high


def _dealt(full: Sequence[int], units: Sequence[int], batch: int) -> list[int] | None:
    """Take what is too much from parties in units of theirs, the largest first; None where that isn't possible."""
    dealt, surplus = list(full), sum(full) - batch
    for number in sorted(range(len(full)), key=lambda each: -units[each]):
        less = min(surplus, dealt[number]) // units[number] * units[number]
        dealt[number] -= less
        surplus -= less
    return dealt if surplus == 0 else None
