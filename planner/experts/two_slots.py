"""Counts of replicas where each device has two slots: those of a linear program, rounded.

The program (`count_program`) of pairs is exact but for fractions of counts, of which there are few: T is bisected, and
counts rounded from them are made to sum to the slots, which then move one at a time, for the least excess of pairs over
T. The heaviest replica goes with the lightest, the next with the next: no pairs of them are lighter, but for experts in
the middle that would be paired with themselves.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.count_program import TINY, priced
from meshwright.planner.experts.counts import replicas
from meshwright.planner.experts.deadline import NEVER, Deadline, TimeIsOver

# Bisection ends where bound and possible load are this near; linear programs of a layer are that many at most.
NEAR = 5e-4
MOST_STEPS = 5
ABOVE = (0.3, 0.6, 0.9)
# Experts whose counts are tried both ways, and moves of a slot after rounding.
MOST_FRACTIONAL = 3
MOST_MOVES = 6
MOST_TAKERS, MOST_DONORS = 16, 96
# At last, from the best counts: moves, and experts that may give or take a slot.
MOST_CLIMBS = 24
MOST_CLIMBERS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Counts [experts] that sum to the slots, the largest load of their pairs, and what no placement is below."""

    counts: IntArray
    largest: float
    bound: float


def paired(weights: FloatArray, counts: IntArray, *, devices: int, bound: float, deadline: Deadline = NEVER) -> Paired:
    """Give better counts than `counts`, where there are, and a bound that is no lower than `bound`.

    weights, counts: of one layer's experts [experts]; counts sum to 2 `devices`.
    """
    best, low = counts, bound
    largest = high = _largest(weights, counts)
    # Counts that the program knows; those that its prices ask for are added.
    known = np.zeros((len(weights), devices + 1), bool)
    # At the least possible load the program leaves nothing to round with: above it counts are rounded better.
    for share in (*(0.5,) * MOST_STEPS, *ABOVE):
        high = high if share == 0.5 else largest
        if deadline.passed():
            break
        if high <= low * (1 + NEAR):
            continue
        most = low + (high - low) * share
        try:
            found = priced(weights, most, known, slots=2 * devices, deadline=deadline)
        except TimeIsOver:
            break
        if found is None:
            low = most
            continue
        high = most
        tried = _rounded(weights, found.counts, most, devices=devices)
        reached = _largest(weights, tried)
        if reached < largest:
            best, largest = tried, reached
            high = min(high, largest)
    if largest > low * (1 + NEAR) and not deadline.passed():
        tried = _climbed(weights, best, low, devices=devices, deadline=deadline)
        reached = _largest(weights, tried)
        best, largest = (tried, reached) if reached < largest else (best, largest)
    return Paired(counts=best, largest=largest, bound=min(low, largest))


def _rounded(weights: FloatArray, counts: FloatArray, most: float, *, devices: int) -> IntArray:
    """Give whole counts near `counts` that sum to the slots, for the least excess of pairs over `most`."""
    below = np.floor(counts + 1e-6).astype(np.int64)
    parts = counts - below
    both = np.argsort(-np.minimum(parts, 1 - parts), kind="stable")[:MOST_FRACTIONAL]
    both = both[parts[both] > 1e-6]
    nearest = np.where(parts > 0.5, below + 1, below)
    tries = np.repeat(nearest[None], 2 ** len(both), axis=0)
    tries[:, both] = below[both] + np.array(list(product((0, 1), repeat=len(both))))
    tries = np.unique(np.stack([_summing(weights, row, devices=devices) for row in tries]), axis=0)
    best = tries[int(_excess_and_largest(weights, tries, most)[0].argmin())]
    return _moved(weights, best, most, devices=devices)


def _summing(weights: FloatArray, counts: IntArray, *, devices: int) -> IntArray:
    """Give or take slots, one at a time, until they sum to those of the devices."""
    counts = np.minimum(counts, devices)
    while (missing := 2 * devices - int(counts.sum())) != 0:
        step = 1 if missing > 0 else -1
        able = np.flatnonzero(counts < devices if step > 0 else counts > 1)
        each = weights / counts if step > 0 else weights / np.maximum(counts - 1, 1)
        # The heaviest replicas gain most, and the lightest lose least.
        counts[able[int((each[able] * step).argmax())]] += step
    return counts


def _moved(weights: FloatArray, counts: IntArray, most: float, *, devices: int) -> IntArray:
    """Move one slot at a time between experts, as long as the excess over `most` gets less."""
    now = float(_excess_and_largest(weights, counts[None], most)[0][0])
    for _ in range(MOST_MOVES):
        if now <= TINY * most:
            break
        taker, donor = _trades(weights, counts, most, devices=devices)
        if not len(taker):
            break
        tries = _traded(counts, taker, donor)
        excess = _excess_and_largest(weights, tries, most)[0]
        best = int(excess.argmin())
        if excess[best] >= now * (1 - 1e-6):
            break
        counts, now = tries[best], float(excess[best])
    return counts


def _climbed(weights: FloatArray, counts: IntArray, most: float, *, devices: int, deadline: Deadline) -> IntArray:
    """Give the counts of the lightest pairs of those met while slots move, of all that may, for the least excess."""
    best, largest = counts, _largest(weights, counts)
    now = float(_excess_and_largest(weights, counts[None], most)[0][0])
    for _ in range(MOST_CLIMBS):
        if deadline.passed():
            break
        lighter = np.argsort(weights / np.maximum(counts - 1, 1), kind="stable")
        donors = lighter[counts[lighter] > 1][:MOST_CLIMBERS]
        heavier = np.argsort(-weights / counts, kind="stable")
        takers = heavier[counts[heavier] < devices][:MOST_CLIMBERS]
        taker, donor = _each_with_each(takers, donors)
        if not len(taker):
            break
        tries = _traded(counts, taker, donor)
        excess, heaviest = _excess_and_largest(weights, tries, most)
        lightest, least = int(heaviest.argmin()), int(excess.argmin())
        if heaviest[lightest] < largest:
            best, largest = tries[lightest], float(heaviest[lightest])
        if excess[least] >= now * (1 - 1e-6):
            break
        counts, now = tries[least], float(excess[least])
    return best


def _trades(weights: FloatArray, counts: IntArray, most: float, *, devices: int) -> tuple[IntArray, IntArray]:
    """Give who gets a slot from whom: the experts of the pairs above `most`, from all that have more than one."""
    expert = replicas(counts[None])[0]
    expert = expert[np.argsort((weights / counts)[expert], kind="stable")]
    each = (weights / counts)[expert]
    above = np.flatnonzero(each + each[::-1] > most)
    above = above[np.argsort(-(each + each[::-1])[above], kind="stable")][:MOST_TAKERS]
    takers = np.unique(expert[above])
    lighter = np.argsort(weights / np.maximum(counts - 1, 1), kind="stable")
    takers, donors = takers[counts[takers] < devices], lighter[counts[lighter] > 1][:MOST_DONORS]
    return _each_with_each(takers, donors)


def _each_with_each(takers: IntArray, donors: IntArray) -> tuple[IntArray, IntArray]:
    """Give all trades between two experts, who gets the slot and who gives it."""
    taker, donor = (part.ravel() for part in np.meshgrid(takers, donors, indexing="ij"))
    return taker[taker != donor], donor[taker != donor]


def _traded(counts: IntArray, taker: IntArray, donor: IntArray) -> IntArray:
    """Give the counts after each of some trades [trades, experts]."""
    trade = np.arange(len(taker))
    tries = np.repeat(counts[None], len(taker), axis=0)
    tries[trade, taker] += 1
    tries[trade, donor] -= 1
    return tries


def _largest(weights: FloatArray, counts: IntArray) -> float:
    return float(_excess_and_largest(weights, counts[None], 0.0)[1][0])


def _excess_and_largest(weights: FloatArray, counts: IntArray, most: float) -> tuple[FloatArray, FloatArray]:
    """Give what pairs of the heaviest with the lightest weigh above `most` in all, and the heaviest pair [tries].

    An expert whose replicas would be paired with one another has them exchanged with the next ones.
    """
    half = int(counts[0].sum()) // 2
    each = np.take_along_axis(weights / counts, replicas(counts), axis=1)
    each.sort(axis=1)
    light, heavy = each[:, half - 1 :: -1], each[:, half:].copy()
    at = np.flatnonzero(light[:, 0] == heavy[:, 0])
    if len(at):
        middle = heavy[at, :1]
        above, below = (heavy[at] == middle).sum(axis=1)[:, None], (light[at] == middle).sum(axis=1)[:, None]
        place = np.arange(half)
        apart = np.where(place < below, place + above, np.where(place < below + above, place - below, place))
        heavy[at] = np.take_along_axis(heavy[at], np.minimum(apart, half - 1), axis=1)
    pairs = heavy + light
    return np.maximum(pairs - most, 0.0).sum(axis=1), pairs.max(axis=1)
