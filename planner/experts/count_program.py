"""A linear program on the counts of replicas, and the bound that it proves.

Where no load is above T, a device with a replica of load h > T / 2 holds none above T - h beside it. Of those above
T - h it holds two at most, where it has two slots, or where h <= 2 T / 3, since three weigh more than T. With
y[e, c] = 1 where expert e has c replicas of load w_e / c, on G devices of P slots in all, that is linear:

    one count     sum over c of y[e, c] = 1                                                       for each e
    company       sum of c y[e, c] ([w_e / c >= h] + [w_e / c > T - h]) <= 2 G                     for each such h
    slots         sum of c y[e, c] <= P

With y from 0 to 1 the least excess over the right-hand sides is a linear program. Its prices u >= 0, of company and of
a slot, u[inf], prove T impossible where

    sum over e of min over c of c (u[inf] + sum over h of u[h] ([w_e / c >= h] + [w_e / c > T - h]))
        >  u[inf] P + 2 G sum over h of u[h]

over all counts, also those that the program doesn't know: it gets to know those that are cheapest until that holds.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.catalog.errors import SolverFailed
from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray
from meshwright.planner.experts.deadline import NEVER, Deadline, TimeIsOver

# Counts from the least possible that the program knows first.
FIRST = 3
TINY = 1e-9
# The bound is bisected in so many steps, or until that near.
BOUND_STEPS = 6
BOUND_NEAR = 1e-3


def company_bound(
    weights: FloatArray, *, slots: int, devices: int, low: float, high: float, deadline: Deadline = NEVER
) -> float:
    """Give a bound from `low`, which is one, to `high`, of the largest load of one layer's experts [experts]."""
    known = np.zeros((len(weights), devices + 1), bool)
    for _ in range(BOUND_STEPS):
        if high <= low * (1 + BOUND_NEAR) or deadline.passed():
            break
        most = (low + high) / 2
        try:
            possible = priced(weights, most, known, slots=slots, deadline=deadline)
        except TimeIsOver:
            break
        low, high = (most, high) if possible is None else (low, most)
    return low


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Program:
    """The program's answer for one T.

    excess: over the right-hand sides; counts: of each expert, as far as whole; prices: of each of `heavy`, the h of
    the rows, the last of which, infinite, is that of the slots; limits: their right-hand sides.
    """

    excess: float
    counts: FloatArray
    prices: FloatArray
    heavy: FloatArray
    limits: FloatArray


def priced(weights: FloatArray, most: float, known: BoolArray, *, slots: int, deadline: Deadline) -> Program | None:
    """Solve the program for a largest load of `most`, all counts considered; None where that is impossible.

    weights: of one layer's experts [experts]; known: the counts that the program knows, to which it adds
    [experts, devices + 1]. Raises TimeIsOver.
    """
    devices = known.shape[1] - 1
    least = _least(weights, most)
    spare = slots - int(least.sum())
    if least.max() > devices or spare < 0:
        return None
    rows = np.arange(len(weights))
    for more in range(FIRST):
        known[rows, np.minimum(least + more, devices)] = True
    while True:
        found = _solved(
            weights, most, known & (np.arange(devices + 1) >= least[:, None]), slots=slots, deadline=deadline
        )
        if found.excess <= TINY * devices:
            return found
        cost, count = _cheapest(weights, most, found, np.minimum(least + spare, devices))
        if cost.sum() > found.limits @ found.prices * (1 + TINY):
            return None
        if known[rows, count].all():
            # Only rounding is left of the excess.
            return found
        known[rows, count] = True


def _solved(weights: FloatArray, most: float, known: BoolArray, *, slots: int, deadline: Deadline) -> Program:
    """Solve the program of the counts `known` [experts, counts] for a largest load of `most`."""
    from scipy.optimize import linprog  # noqa: PLC0415 - slow to import, and few placements need it
    from scipy.sparse import csc_matrix  # noqa: PLC0415

    expert, count = np.nonzero(known)
    load = weights[expert] / count
    devices = known.shape[1] - 1
    highest = np.inf if slots == 2 * devices else most * 2 / 3
    heavy = np.append(np.unique(load[(load > most / 2) & (load <= highest)]), np.inf)
    limits = np.append(np.full(len(heavy) - 1, 2.0 * devices), slots)
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
        b_ub=limits,
        bounds=(0, None),
        method="highs-ds",
        options={} if deadline.at == np.inf else {"time_limit": deadline.left_s},
    )
    if deadline.passed():
        raise TimeIsOver
    if end.x is None:
        raise SolverFailed(f"the program of counts: {end.message}", hint="please report it with the routing")
    shares: FloatArray = end.x[:columns] * count
    return Program(
        excess=float(end.x[-1]),
        counts=np.bincount(expert, shares, minlength=experts).astype(np.float64),
        prices=np.maximum(-end.ineqlin.marginals, 0.0),
        heavy=heavy,
        limits=limits,
    )


def _least(weights: FloatArray, most: float) -> IntArray:
    least: IntArray = np.maximum(1, np.ceil(weights / most * (1 - TINY))).astype(np.int64)
    return least


def _taken(load: FloatArray, count: IntArray, heavy: FloatArray, most: float) -> FloatArray:
    """Give what counts take of the rows [heavy, counts]; loads equal but for rounding may be paired."""
    above = load >= heavy[:, None] * (1 - TINY)
    lonely = load > (most - heavy)[:, None] + TINY * most
    taken: FloatArray = (above.astype(np.float64) + lonely) * count
    return taken


def _cheapest(weights: FloatArray, most: float, found: Program, upto: IntArray) -> tuple[FloatArray, IntArray]:
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
