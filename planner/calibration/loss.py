"""How much an error counts, as a function f of it whose square is minimised, and f's derivative.

z is log(predicted / measured) over the usual error, 5 %.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import FloatArray

USUAL_ERROR = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """f, and its derivative, of arrays of log ratios."""

    of: Callable[[FloatArray], FloatArray]
    slope: Callable[[FloatArray], FloatArray]


def _cauchy(ratios: FloatArray) -> FloatArray:
    scaled = ratios / USUAL_ERROR
    return np.sign(scaled) * np.sqrt(np.log1p(scaled**2))


def _cauchy_slope(ratios: FloatArray) -> FloatArray:
    """Give z / ((1 + z^2) f) over 5 %, whose limit at 0 is 1 over 5 %."""
    size = np.maximum(np.abs(ratios) / USUAL_ERROR, 1e-6)
    slope: FloatArray = size / ((1.0 + size**2) * np.sqrt(np.log1p(size**2))) / USUAL_ERROR
    return slope


# f = z: least squares.
PLAIN = Loss(of=lambda ratios: ratios / USUAL_ERROR, slope=lambda ratios: np.full(ratios.shape, 1.0 / USUAL_ERROR))
# f^2 = log(1 + z^2), of the sign of z: Cauchy's loss.
ROBUST = Loss(of=_cauchy, slope=_cauchy_slope)
