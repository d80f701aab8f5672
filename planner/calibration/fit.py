"""Fitting constants to evidence: robust least squares of log errors, with weak priors at the catalog's values.

With r = log(predicted / measured) of row i of a source of n rows, and x the log_factors of the constants, the fit is

    min over x within bounds of   sum_i w_i^2 rho(r_i(x) / 5 %)  +  sum_k (x_k / spread_k)^2

rho(z) = log(1 + z^2), Cauchy's, hardly counts a row that is far off: what its software does isn't modelled, and no
constant should make up for that. w_i^2 = min(1, 10 / n) times the row's confidence: the rows of one source err alike,
and count as ten at most; n counts its rows of one kind, where it timed products, copies and collectives apart. The
priors keep what the rows don't tell where it is.

It is solved by Gauss-Newton: predictions are taken to be linear near a point (`linearised.py`), the linear problem is
solved by scipy, and predictions at its solution correct it; the Jacobian is measured again where that isn't enough. A
robust fit may have several minima: the better is taken of those reached from the catalog's values and from the solution
of plain least squares.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from meshwright.costmodels.layout import FloatArray
from meshwright.planner.calibration.constants import Constant
from meshwright.planner.calibration.evidence import Evidence, rows_by_kind
from meshwright.planner.calibration.linearised import Linearised, Watch, linearise, log_ratio
from meshwright.planner.calibration.loss import PLAIN, ROBUST, USUAL_ERROR, Loss

LEAST_ERROR = 0.01
ROWS_OF_A_SOURCE = 10
CORRECTIONS = 4
LINEARISATIONS = 3
CLOSE = 1e-3
INSIDE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The best constants, with what is known of them.

    log_factors: (k,). near: the evidence linearised close to them.
    standard_errors: of the log_factors, (k,), the prior counted as a measurement.
    told: the share of each constant's uncertainty that the evidence removed, from 0 to 1, (k,).
    """

    log_factors: FloatArray
    near: Linearised
    standard_errors: FloatArray
    told: FloatArray


def weights_of(evidence: Sequence[Evidence]) -> FloatArray:
    """Give the weight w of each row, source after source."""
    rows = rows_by_kind(evidence)
    return np.concatenate([_weights(each, rows=rows[each.label, each.kind]) for each in evidence])


def _weights(evidence: Evidence, *, rows: int) -> FloatArray:
    confidence = np.ones(len(evidence)) if evidence.confidence is None else evidence.confidence
    return np.sqrt(confidence * min(1.0, ROWS_OF_A_SOURCE / rows))


def fit(evidence: Sequence[Evidence], constants: Sequence[Constant], *, watch: Watch = iter) -> Fit:
    """Fit constants to evidence, starting from the catalog's values."""
    weights = weights_of(evidence)
    near = linearise(evidence, constants, np.zeros(len(constants)), watch=watch)
    # Rows that are all far off the same way count little where they are, and much where a fit that isn't robust leads.
    plain = solve(near, constants, weights, loss=PLAIN)
    there = replace(near, at=plain, log_ratio=log_ratio(evidence, constants, plain))
    ends = [corrected(evidence, constants, start, weights) for start in (near, there)]
    near = min(ends, key=lambda end: cost(end.log_ratio, end.at, constants, weights))
    for _ in range(LINEARISATIONS - 1):
        start = near.at
        near = corrected(evidence, constants, linearise(evidence, constants, start, watch=watch), weights)
        if np.max(np.abs(near.at - start), initial=0.0) < 10 * CLOSE:
            break
    standard_errors, told = uncertainty(near, constants, weights)
    return Fit(log_factors=near.at, near=near, standard_errors=standard_errors, told=told)


def corrected(
    evidence: Sequence[Evidence],
    constants: Sequence[Constant],
    near: Linearised,
    weights: FloatArray,
    *,
    corrections: int = CORRECTIONS,
) -> Linearised:
    """Solve with one Jacobian, and correct the solution by exact predictions until it stays, or gets no better.

    Gives the solution with its exact log ratios.
    """
    best_cost = cost(near.log_ratio, near.at, constants, weights)
    for _ in range(corrections):
        found = solve(near, constants, weights)
        exact = log_ratio(evidence, constants, found)
        found_cost = cost(exact, found, constants, weights)
        if found_cost >= best_cost:  # too far for the Jacobian: half the way
            found = (near.at + found) / 2
            exact = log_ratio(evidence, constants, found)
            found_cost = cost(exact, found, constants, weights)
        if found_cost >= best_cost:
            break
        step, best_cost = np.max(np.abs(found - near.at), initial=0.0), found_cost
        near = replace(near, at=found, log_ratio=exact)
        if step < CLOSE:
            break
    return near


def cost(ratios: FloatArray, log_factors: FloatArray, constants: Sequence[Constant], weights: FloatArray) -> float:
    """Give what the fit minimises, of log ratios (n,) and log_factors (k,)."""
    priors = log_factors / _spreads(constants)
    return float(np.sum((weights * ROBUST.of(ratios)) ** 2) + np.sum(priors**2))


def solve(near: Linearised, constants: Sequence[Constant], weights: FloatArray, *, loss: Loss = ROBUST) -> FloatArray:
    """Give the log_factors that are best where predictions are linear, (k,)."""
    from scipy.optimize import least_squares  # noqa: PLC0415 - heavy, and only a calibration needs it

    if not constants:
        return near.at
    spreads = _spreads(constants)
    low, high = np.array([constant.bounds for constant in constants]).T
    # An open interval is asked for: a constant that may not move at all gets a hair's breadth.
    high = np.maximum(high, low + 1e-9)

    def residuals(log_factors: FloatArray) -> FloatArray:
        return np.concatenate([weights * loss.of(near.log_ratio_at(log_factors)), log_factors / spreads])

    def jacobian(log_factors: FloatArray) -> FloatArray:
        slopes = weights * loss.slope(near.log_ratio_at(log_factors))
        return np.concatenate([slopes[:, np.newaxis] * near.jacobian, np.diag(1.0 / spreads)])

    # From a start on a bound the solver's steps shrink to nothing, in all constants alike.
    margin = np.minimum(INSIDE, (high - low) / 4.0)
    start = np.clip(near.at, low + margin, high - margin)
    return np.asarray(least_squares(residuals, start, jac=jacobian, bounds=(low, high), xtol=1e-10, ftol=1e-10).x)


def uncertainty(near: Linearised, constants: Sequence[Constant], weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Give the standard errors of the log_factors, and the share of their prior variance that the rows removed.

    The Hessian of a Gauss-Newton step, with the rows' own scatter (1 % at least) in the place of the usual error.
    """
    slopes = weights * ROBUST.slope(near.log_ratio) * USUAL_ERROR
    scatter = np.sqrt(np.sum((weights * ROBUST.of(near.log_ratio)) ** 2) / np.sum(weights**2)) * USUAL_ERROR
    scaled = slopes[:, np.newaxis] * near.jacobian / max(scatter, LEAST_ERROR)
    spreads = _spreads(constants)
    variances = np.diag(np.linalg.inv(scaled.T @ scaled + np.diag(spreads**-2.0)))
    return np.sqrt(variances), np.clip(1.0 - variances / spreads**2, 0.0, 1.0)


def _spreads(constants: Sequence[Constant]) -> FloatArray:
    return np.array([constant.span.spread for constant in constants])
