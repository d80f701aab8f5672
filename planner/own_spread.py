"""The half width of an interval where the user's own left-out rows say how far off predictions of a device are.

The catalog's half width w, of predictions of the same class, counts as n0 = 10 rows, as many as one source does in a
calibration; the user's count as n, with a mean square s^2 of their log errors. Of normal errors with those two
estimates of one variance, a level p of predictions is within

    w' = t(n0 + n) sqrt((n0 (w / t(n0))^2 + n s^2) / (n0 + n))

where t(n) is Student's quantile at (1 + p) / 2 with n degrees of freedom. Without rows w' = w; with ever more rows it
tends to what a normal distribution of spread s needs, 1.64 s at 90 %. No few rows, however near, make a prediction
much surer: ten that are exact leave 0.67 w.
"""

import math
from statistics import NormalDist

from meshwright.catalog.residuals_entry import ResidualsEntry

CATALOG_ROWS = 10.0


def width_with(residuals: ResidualsEntry, *, width: float, level: float) -> float:
    """Give the half width w', in the logarithm, from the catalog's `width` of an interval that holds a `level`."""
    share = (1 + level) / 2
    catalog_spread = width / student_quantile(share, CATALOG_ROWS)
    freedom = CATALOG_ROWS + residuals.counts_as
    square = (CATALOG_ROWS * catalog_spread**2 + residuals.counts_as * residuals.spread**2) / freedom
    return student_quantile(share, freedom) * math.sqrt(square)


def student_quantile(share: float, freedom: float) -> float:
    """Give the quantile of Student's t at `share`, to 0.001 from ten degrees of freedom on.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z = NormalDist().inv_cdf(share)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
