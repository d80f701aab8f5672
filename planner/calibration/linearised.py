"""What evidence says near a set of constants: the logarithms of its predictions, and how they move with each constant.

Steps are of the logarithms of the constants, so that a Jacobian's entry is an elasticity: -0.7 for a constant whose
rise by 1 % makes a step 0.7 % faster.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.costmodels.layout import FloatArray
from meshwright.planner.calibration.constants import Constant, candidate
from meshwright.planner.calibration.evidence import Evidence

STEP = 1e-3

Mask = NDArray[np.bool_]
Watch = Callable[[Sequence[int]], Iterable[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Linearised:
    """Rows of evidence, in order, near `at`.

    at: log_factors of the constants, (k,). log_ratio: log(predicted / measured) there, (n,).
    jacobian: its derivatives by the log_factors, (n, k).
    """

    at: FloatArray
    log_ratio: FloatArray
    jacobian: FloatArray

    def rows(self, kept: Mask) -> "Linearised":
        """Give some of the rows; `kept` is of shape (n,)."""
        return Linearised(at=self.at, log_ratio=self.log_ratio[kept], jacobian=self.jacobian[kept])

    def columns(self, kept: Mask) -> "Linearised":
        """Give some of the constants; `kept` is of shape (k,)."""
        return Linearised(at=self.at[kept], log_ratio=self.log_ratio, jacobian=self.jacobian[:, kept])

    def log_ratio_at(self, log_factors: FloatArray) -> FloatArray:
        """Give the linear guess of log(predicted / measured), (n,)."""
        guess: FloatArray = self.log_ratio + self.jacobian @ (log_factors - self.at)
        return guess


def log_ratio(evidence: Sequence[Evidence], constants: Sequence[Constant], log_factors: FloatArray) -> FloatArray:
    """Give log(predicted / measured) of all rows, source after source."""
    overlay = candidate(constants, log_factors)
    return np.concatenate([_log_ratio(each, overlay) for each in evidence])


def _log_ratio(evidence: Evidence, overlay: OverlayEntry) -> FloatArray:
    return np.asarray(np.log(evidence.predict(overlay) / evidence.measured_s))


def linearise(
    evidence: Sequence[Evidence], constants: Sequence[Constant], at: FloatArray, *, watch: Watch = iter
) -> Linearised:
    """Measure the Jacobian by a small step of each constant, away from the nearer of its bounds."""
    base = log_ratio(evidence, constants, at)
    jacobian = np.zeros((len(base), len(constants)))
    for index in watch(range(len(constants))):
        low, high = constants[index].bounds
        step = STEP if at[index] - low < high - at[index] else -STEP
        moved = at.copy()
        moved[index] += step
        overlay, first = candidate(constants, moved), 0
        for each in evidence:
            rows = slice(first, first + len(each))
            if depends(each, constants[index]):
                jacobian[rows, index] = (_log_ratio(each, overlay) - base[rows]) / step
            first = rows.stop
    return Linearised(at=at, log_ratio=base, jacobian=jacobian)


def depends(evidence: Evidence, constant: Constant) -> bool:
    """Tell whether a constant can change the predictions."""
    return evidence.entries is None or not evidence.entries.isdisjoint(constant.entries)
