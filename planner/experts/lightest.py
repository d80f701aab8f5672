"""The least largest load of a layer whose devices may hold few sets of experts.

It is bisected between bound and largest load: exact covers with a largest load of T are looked for (`covered`). Without
slots to spare each expert is on one device. Else T forces counts of at least w_e / T, and all ways to spread the slots
left, filled or not, are tried; where they are too many only those that move a slot from the counts of the lightest
placement known, which proves nothing.
"""

from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb

import numpy as np

from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray
from meshwright.planner.experts.cover import Work, WorkIsOver, covered
from meshwright.planner.experts.deadline import NEVER, Deadline

# Sets looked at in all, and with replicas; for the counts of one try, beside so many times all sets; counts tried.
MOST_WORK, REPLICATED_WORK = 5_000_000, 40_000_000
COUNT_WORK = 50_000
MOST_COUNTS = 1500
SHARE = 3
# Steps of the bisection, which is halving until little is left, and what is no less than another load but for rounding.
STEPS, REPLICATED_STEPS = 20, 5
LITTLE = 2e-4
STRICTLY = 1e-11
# How near the bound is near enough where there are replicas.
NEAR = 4e-4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lightest:
    """Which experts each device holds [devices, experts], None where nothing lighter than what was known was found.

    largest: the largest load, that known if so; bound: no placement is lighter.
    """

    held: BoolArray | None
    largest: float
    bound: float


def lightest(
    weights: FloatArray,
    counts: IntArray,
    *,
    devices: int,
    size: int,
    known: float,
    bound: float,
    deadline: Deadline = NEVER,
) -> Lightest:
    """Give the lightest placement of one layer as far as the work and the time go.

    weights: of the experts [experts]; counts: of their replicas in the placement that is there; known: its largest
    load; size: slots of a device; bound: no placement is lighter.
    """
    single = devices * size == len(weights)
    held, largest, low = None, known, bound
    work = Work(MOST_WORK, deadline)
    for _ in range(STEPS if single else REPLICATED_STEPS):
        if largest <= low * (1 + (10 * STRICTLY if single else NEAR)) or work.left < 0 or deadline.passed():
            break
        most = (low + largest) / 2
        if single:
            most = most if largest > low * (1 + LITTLE) else largest * (1 - STRICTLY)
        else:
            work = Work(REPLICATED_WORK // REPLICATED_STEPS, deadline)
        found, complete = _any(weights, counts, devices=devices, size=size, most=most, work=work)
        if found is not None:
            held, counts = found, found.sum(axis=0)
            largest = float((found @ (weights / counts)).max())
        else:
            low = most
            bound = most if complete else bound
    return Lightest(held=held, largest=largest, bound=bound)


def _any(
    weights: FloatArray, known: IntArray, *, devices: int, size: int, most: float, work: Work
) -> tuple[BoolArray | None, bool]:
    """Give a placement with no load above `most`, of any counts; where none was found, whether there is none."""
    tries, complete = _counts(weights, known, devices=devices, slots=devices * size, most=most)
    each = COUNT_WORK + SHARE * comb(len(weights), min(size, len(weights)))
    for counts in tries:
        own = Work(min(work.left, each) if len(tries) > 1 else work.left, work.deadline)
        before = own.left
        try:
            found = covered(weights, counts, devices=devices, size=size, most=most, work=own)
        except WorkIsOver:
            found, complete = None, False
        work.left -= before - own.left
        if found is not None:
            return found, False
        if work.left < 0 or work.deadline.struck:
            return None, False
    return None, complete


def _counts(
    weights: FloatArray, known: IntArray, *, devices: int, slots: int, most: float
) -> tuple[list[IntArray], bool]:
    """Give counts of replicas, those that fill the slots with the lightest heaviest one first, and whether all."""
    experts = len(weights)
    forced = np.maximum(1, np.ceil(weights / most * (1 - 1e-9))).astype(np.int64)
    spare = slots - int(forced.sum())
    if spare < 0 or forced.max() > devices:
        return [], True
    complete = comb(experts + spare, spare) <= MOST_COUNTS
    if complete:
        # One more than the experts stands for a slot that stays empty.
        ways = [
            forced + np.bincount(np.array(chosen, np.int64), minlength=experts + 1)[:experts]
            for chosen in combinations_with_replacement(range(experts + 1), spare)
        ]
    else:
        one = np.eye(experts, dtype=np.int64)
        ways = [known, *(known + one[:, None] - one).reshape(-1, experts)]
    ways = [way for way in ways if (way >= forced).all() and way.max() <= devices]
    return sorted(ways, key=lambda way: (-way.sum(), (weights / way).max(), *way)), complete
