"""Sets of experts, one a device, that cover a layer's experts exactly.

With the counts c of replicas given, a largest load of T is possible only if G sets A_1, ..., A_G of at most S experts
each hold every expert e in c_e of them, with w(A) = sum over e in A of w_e / c_e <= T. What G devices carry in all is
known; so with g devices left that are to carry R,

    R - (g - 1) T <= w(A) <= T

holds for each of their sets. With T near the mean few of the C(E, S) sets are left. They are searched fully, the expert
that the fewest of them hold first (D. E. Knuth, Dancing links, 2000); a set that was tried isn't tried again beside the
next one, since devices are alike.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np

from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray
from meshwright.planner.experts.deadline import Deadline

# Sets beyond which they aren't listed.
MOST_SETS = 250_000
# What a step of a search costs beside the sets that it looks at.
STEP = 1000
# Sums of a few loads are rounded.
ROUNDING = 1e-12


class WorkIsOver(Exception):
    """More sets would have to be looked at than the work allows."""


@dataclass(slots=True)
class Work:
    """How many more sets may be looked at, and until when."""

    left: int
    deadline: Deadline = field(default_factory=Deadline)

    def take(self, sets: int) -> None:
        """Take from what is left. Raises WorkIsOver."""
        self.left -= sets + STEP
        if self.left < 0 or self.deadline.passed():
            raise WorkIsOver


def coverable(experts: int, *, devices: int, size: int) -> bool:
    """Say whether the sets of experts that a device may hold are few enough to be listed."""
    least = size if devices * size == experts else 1
    return sum(comb(experts, held) for held in range(least, min(size, experts) + 1)) <= MOST_SETS


def covered(
    weights: FloatArray, counts: IntArray, *, devices: int, size: int, most: float, work: Work
) -> BoolArray | None:
    """Give which experts each device holds [devices, experts] with no load above `most`, None where that can't be.

    weights, counts: of the experts of one layer [experts]; the counts sum to at most devices x size.
    Raises WorkIsOver.
    """
    least = max(1, int(counts.sum()) - (devices - 1) * size)
    member = _sets(len(weights), least, size)
    loads = member @ (weights / counts)
    work.take(len(member))
    fits = loads <= most * (1 + ROUNDING)
    search = _Search(member=member[fits], loads=loads[fits], size=size, most=most, work=work)
    chosen = search.visit(np.arange(len(search.loads)), counts, devices, float(weights.sum()))
    return None if chosen is None else search.member[chosen]


@lru_cache(maxsize=8)
def _sets(experts: int, least: int, most: int) -> BoolArray:
    """Give which experts each set of `least` to `most` of them holds [sets, experts]."""
    parts = []
    for held in range(min(most, experts), least - 1, -1):
        number = comb(experts, held)
        flat = (expert for chosen in combinations(range(experts), held) for expert in chosen)
        chosen = np.fromiter(flat, np.int64, number * held).reshape(number, held)
        part = np.zeros((number, experts), bool)
        np.put_along_axis(part, chosen, values=True, axis=1)
        parts.append(part)
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Search:
    member: BoolArray
    loads: FloatArray
    size: int
    most: float
    work: Work

    def visit(self, sets: IntArray, left: IntArray, devices: int, load: float) -> list[int] | None:
        """Give sets that cover what is `left` of each expert on as many devices, which are to carry `load`."""
        self.work.take(len(sets))
        sets = self._possible(sets, left, devices, load)
        member = self.member[sets]
        if devices == 1:
            return [int(sets[0])] if len(sets) else None
        held = np.where(left > 0, member.sum(axis=0), len(sets) + 1)
        scarce = int(held.argmin())
        if not held[scarce]:
            return None
        choices = sets[member[:, scarce]]
        for tried in choices[np.argsort(-self.loads[choices], kind="stable")].tolist():
            rest = left - self.member[tried]
            free = sets[~self.member[sets][:, rest == 0].any(axis=1)]
            found = self.visit(free, rest, devices - 1, load - float(self.loads[tried]))
            if found is not None:
                return [tried, *found]
            sets = sets[sets != tried]
        return None

    def _possible(self, sets: IntArray, left: IntArray, devices: int, load: float) -> IntArray:
        """Leave out sets beside which the other devices can't carry, or hold, what is left."""
        least = load - (devices - 1) * self.most * (1 + ROUNDING) - ROUNDING * len(left) * self.most
        sets = sets[self.loads[sets] >= least]
        member = self.member[sets]
        holds_all = member[:, left == devices].all(axis=1)
        possible: IntArray = sets[holds_all & (member.sum(axis=1) >= left.sum() - (devices - 1) * self.size)]
        return possible
