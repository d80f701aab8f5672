"""The share of the time that is of use, in closed form: Daly's formula, once for near copies and once around it.

Failures of a kind come as a Poisson process of rate l, and work goes on R seconds after each, if none hits meanwhile:
from one failure during work to the next, e^(l R) / l seconds go by on average. Where copies are made every w seconds of
work and are good c seconds later, work that lasts x seconds without a failure leaves (x - c) / w pieces that are good,
rounded down: the sum over i of e^(-l (i w + c)) on average. So a piece takes

    expected(l, w, R, c) = (e^(l w) - 1) e^(l (R + c)) / l

(Daly, doi 10.1016/j.future.2004.11.016, equation 13, for c = 0). With a near copy every n steps, of t = n step seconds,
and one on storage every k of those:

    piece   = expected(l1, t + blocked1, R1, c1)              near
    useful  = k t / expected(l2, k piece + blocked2, R2, c2)  storage

exact for one level; for two as far as failures of the one kind rarely come twice between two of the
other; docs/change.md has figures of where they do.

As many seconds of use as of time: the goodput. For one level and l w small that is Young's: the best t is near
sqrt(2 blocked / l) (doi 10.1145/361147.361115).
"""

from dataclasses import dataclass

import numpy as np

from meshwright.catalog.errors import Infeasible
from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.goodput.levels import Recovery, Scheme

# An exponent beyond which no piece is ever done.
ENDLESS = 50.0
# Less of use than this is none.
LEAST = 0.01
# Numbers of steps and of near copies that are tried before those around the best of them.
TRIED = 160
LONGEST_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """How often state is saved: every `steps` steps, and on storage every `copies` of those; and the goodput then."""

    steps: int
    copies: int
    goodput: float


def expected_s(recovery: Recovery, piece_s: FloatArray) -> FloatArray:
    """Give the seconds that pieces of so many seconds take with failures; infinity where they never end."""
    if recovery.per_s == 0:
        return piece_s
    exponent = recovery.per_s * piece_s
    failed = np.expm1(np.minimum(exponent, ENDLESS))
    lost_s = min(recovery.per_s * (recovery.restart_s + recovery.late_s), ENDLESS)
    each_s = np.exp(lost_s) / recovery.per_s
    return np.where(exponent < ENDLESS, failed * each_s, np.inf)


def goodput_of(scheme: Scheme, step_s: float, steps: IntArray, copies: IntArray) -> FloatArray:
    """Give the goodput of a scheme that saves every so many steps, and on storage every so many copies."""
    work_s: FloatArray = (steps * step_s).astype(np.float64)
    piece_s = work_s if scheme.near is None else expected_s(scheme.near, work_s + scheme.near.blocked_s)
    whole_s = expected_s(scheme.storage, copies * piece_s + scheme.storage.blocked_s)
    return np.asarray(copies * work_s / whole_s)


def best_interval(scheme: Scheme, step_s: float) -> Interval:
    """Find how often to save. Raises Infeasible where failures come faster than any piece is done."""
    steps, copies = _grid(1, int(LONGEST_S / step_s) + 1), _grid(1, 100_000)
    if scheme.near is None:
        copies = np.ones(1, dtype=np.int64)
    found = _best(scheme, step_s, steps, copies)
    for _ in range(8):
        around = _best(scheme, step_s, _around(found.steps), _around(found.copies) if scheme.near else copies)
        if around.goodput <= found.goodput:
            break
        found = around
    if found.goodput < LEAST:
        raise Infeasible(
            "failures come so fast that less than a hundredth of the time is of use",
            hint="a longer --mtbf, fewer devices, or faster storage",
        )
    return found


def _best(scheme: Scheme, step_s: float, steps: IntArray, copies: IntArray) -> Interval:
    every, each = (column.ravel() for column in np.meshgrid(steps, copies))
    near_s = 0.0 if scheme.near is None else scheme.near.least_s
    often = (every * step_s < near_s) | (every * each * step_s < scheme.storage.least_s)
    values = np.where(often, 0.0, goodput_of(scheme, step_s, every, each))
    best = int(np.argmax(values))
    return Interval(steps=int(every[best]), copies=int(each[best]), goodput=float(values[best]))


def _grid(first: int, last: int) -> IntArray:
    return np.unique(np.geomspace(first, max(last, 2), TRIED).astype(np.int64))


def _around(value: int) -> IntArray:
    """Give whole numbers near one, as far as the grid's next."""
    reach = max(value // 10, 2)
    return np.unique(np.linspace(max(value - reach, 1), value + reach, TRIED).astype(np.int64))
