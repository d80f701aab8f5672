"""Counts of replicas where each device has two slots: a linear program for the bound, and its counts rounded.

With the replicas in pairs, a largest load of T is possible only if those of load h or more, for each h > T / 2, have as
many of load T - h or less, or empty slots, to go with. With y[e, c] = 1 where expert e has c replicas of load w_e / c,
and P slots, that is linear:

    one count     sum over c of y[e, c] = 1                                                       for each e
    company       sum of c y[e, c] ([w_e / c >= h] + [w_e / c > T - h]) <= P                       for each h

and for h beyond all loads, since slots that hold nothing are P - sum of c y >= 0. With y from 0 to 1 the least excess
over P is a linear program. Its prices u >= 0 of `company`, which sum to 1, prove T impossible where

    sum over e of min over c of c sum over h of u[h] ([w_e / c >= h] + [w_e / c > T - h])  >  P

over all counts, also those that the program doesn't know: it gets to know those that are cheapest until that holds. T
is bisected. Few y are fractional; counts rounded from them are made to sum to P, and slots moved one at a time, for the
least excess of pairs over T. The heaviest replica goes with the lightest, the next with the next: no pairs of them are
lighter.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from meshwright.catalog.errors import SolverFailed
from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray
from meshwright.planner.experts.counts import replicas

# Bisection ends where bound and possible load are this near; linear programs of a layer are that many at most.
NEAR = 5e-4
MOST_STEPS = 5
ABOVE = (0.3, 0.6, 0.9)
# Counts from the least possible that the program knows first.
FIRST = 3
# Experts whose counts are tried both ways, and moves of a slot after rounding.
MOST_FRACTIONAL = 3
MOST_MOVES = 6
MOST_TAKERS = 16
TINY = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Counts [experts] that sum to the slots, the largest load of their pairs, and what no placement is below."""

    counts: IntArray
    largest: float
    bound: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Program:
    """The program's answer for one T. excess: over the slots; counts: of each expert, as far as whole."""

    excess: float
    counts: FloatArray
    prices: FloatArray
    heavy: FloatArray


def paired(weights: FloatArray, counts: IntArray, *, devices: int, bound: float) -> Paired:
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
        if high <= low * (1 + NEAR):
            continue
        most = low + (high - low) * share
        found = _priced(weights, most, known)
        if found is None:
            low = most
            continue
        high = most
        tried = _rounded(weights, found.counts, most, devices=devices)
        reached = _largest(weights, tried)
        if reached < largest:
            best, largest = tried, reached
            high = min(high, largest)
    return Paired(counts=best, largest=largest, bound=min(low, largest))


def _priced(weights: FloatArray, most: float, known: BoolArray) -> _Program | None:
    """Solve the program for a largest load of `most`, all counts considered; None where that is impossible."""
    devices = known.shape[1] - 1
    least = _least(weights, most)
    spare = 2 * devices - int(least.sum())
    if least.max() > devices or spare < 0:
        return None
    rows = np.arange(len(weights))
    for more in range(FIRST):
        known[rows, np.minimum(least + more, devices)] = True
    while True:
        found = _solved(weights, most, known & (np.arange(devices + 1) >= least[:, None]))
        if found.excess <= TINY * devices:
            return found
        cost, count = _cheapest(weights, most, found, np.minimum(least + spare, devices))
        if cost.sum() > 2 * devices * found.prices.sum() * (1 + TINY):
            return None
        if known[rows, count].all():
            # Only rounding is left of the excess.
            return found
        known[rows, count] = True


def _solved(weights: FloatArray, most: float, known: BoolArray) -> _Program:
    """Solve the program of the counts `known` [experts, counts] for a largest load of `most`."""
    from scipy.optimize import linprog  # noqa: PLC0415 - slow to import, and few placements need it
    from scipy.sparse import csc_matrix  # noqa: PLC0415

    expert, count = np.nonzero(known)
    load = weights[expert] / count
    # Beyond all loads the row says that the slots are P.
    heavy = np.append(np.unique(load[load > most / 2]), np.inf)
    rows, columns, experts = len(heavy), len(expert), len(weights)
    # Rows differ little from the next: each sum is made of the one before it.
    matrix = np.zeros((experts + rows, columns + rows + 1))
    matrix[expert, np.arange(columns)] = 1.0
    matrix[experts:, :columns] = np.diff(_taken(load, count, heavy, most), axis=0, prepend=0.0)
    matrix[experts:, columns : columns + rows] = np.eye(rows, k=-1) - np.eye(rows)
    over = np.concatenate([np.zeros((rows, columns)), np.eye(rows), -np.ones((rows, 1))], axis=1)
    end = linprog(
        np.concatenate([np.zeros(columns + rows), [1.0]]),
        A_eq=csc_matrix(matrix),
        b_eq=np.concatenate([np.ones(experts), np.zeros(rows)]),
        A_ub=csc_matrix(over),
        b_ub=np.full(rows, 2.0 * (known.shape[1] - 1)),
        bounds=(0, None),
        method="highs-ds",
    )
    if end.x is None:
        raise SolverFailed(f"the program of counts: {end.message}", hint="please report it with the routing")
    shares: FloatArray = end.x[:columns] * count
    return _Program(
        excess=float(end.x[-1]),
        counts=np.bincount(expert, shares, minlength=experts).astype(np.float64),
        prices=np.maximum(-end.ineqlin.marginals, 0.0),
        heavy=heavy,
    )


def _least(weights: FloatArray, most: float) -> IntArray:
    least: IntArray = np.maximum(1, np.ceil(weights / most * (1 - TINY))).astype(np.int64)
    return least


def _taken(load: FloatArray, count: IntArray, heavy: FloatArray, most: float) -> FloatArray:
    """Give the slots that counts take of P in `company` [heavy, counts]; loads equal but for rounding may be paired."""
    above = load >= heavy[:, None] * (1 - TINY)
    lonely = load > (most - heavy)[:, None] + TINY * most
    taken: FloatArray = (above.astype(np.float64) + lonely) * count
    return taken


def _cheapest(weights: FloatArray, most: float, found: _Program, upto: IntArray) -> tuple[FloatArray, IntArray]:
    """Give the least price of each expert's counts, all that are possible, and the count that has it [experts]."""
    kinds = np.flatnonzero(found.prices)
    least = _least(weights, most)
    cheapest, at = np.full(len(weights), np.inf), least
    for more in range(int((upto - least).max()) + 1):
        count = np.minimum(least + more, upto)
        cost = found.prices[kinds] @ _taken(weights / count, count, found.heavy[kinds], most)
        at = np.where(cost < cheapest * (1 - TINY), count, at)
        cheapest = np.minimum(cost, cheapest)
    return cheapest, at


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
        tries = np.repeat(counts[None], len(taker), axis=0)
        tries[np.arange(len(taker)), taker] += 1
        tries[np.arange(len(taker)), donor] -= 1
        excess = _excess_and_largest(weights, tries, most)[0]
        best = int(excess.argmin())
        if excess[best] >= now * (1 - 1e-6):
            break
        counts, now = tries[best], float(excess[best])
    return counts


def _trades(weights: FloatArray, counts: IntArray, most: float, *, devices: int) -> tuple[IntArray, IntArray]:
    """Give who gets a slot from whom: the experts of the pairs above `most`, from all that have more than one."""
    expert = replicas(counts[None])[0]
    expert = expert[np.argsort((weights / counts)[expert], kind="stable")]
    each = (weights / counts)[expert]
    above = np.flatnonzero(each + each[::-1] > most)
    above = above[np.argsort(-(each + each[::-1])[above], kind="stable")][:MOST_TAKERS]
    takers = np.unique(expert[above])
    takers, donors = takers[counts[takers] < devices], np.flatnonzero(counts > 1)
    taker, donor = (part.ravel() for part in np.meshgrid(takers, donors, indexing="ij"))
    return taker[taker != donor], donor[taker != donor]


def _largest(weights: FloatArray, counts: IntArray) -> float:
    return float(_excess_and_largest(weights, counts[None], 0.0)[1][0])


def _excess_and_largest(weights: FloatArray, counts: IntArray, most: float) -> tuple[FloatArray, FloatArray]:
    """Give what pairs of the heaviest with the lightest weigh above `most` in all, and the heaviest pair [tries]."""
    slots = int(counts[0].sum())
    each = np.take_along_axis(weights / counts, replicas(counts), axis=1)
    each.sort(axis=1)
    pairs = each[:, : slots // 2] + each[:, : slots // 2 - 1 : -1]
    return np.maximum(pairs - most, 0.0).sum(axis=1), pairs.max(axis=1)
