"""How much more than its even share the busiest expert rank has to do.

The loads of a layer's E experts, each over their mean, have the standard deviation s (`load_spread`). Experts are dealt
to the P ranks of expert parallelism without regard to it, n = E / P each, so that the mean load of a rank's experts
deviates from 1 by s / sqrt(n) times a standard normal less the mean of all ranks'. All wait for the busiest one:

    load = 1 + c(P) s / sqrt(E / P)      c(P): expected maximum of P standard normals; 0, 0.56, 1.03 of 1, 2, 4

but no more than P, for which all of a token's experts are on one rank. Where routing was measured and experts are
placed by it, the load is that of the placement, averaged over layers, whatever the spread.
"""

from statistics import NormalDist

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.costmodels.transformer import Experts

# Where the normal distribution is integrated: beyond 8 there is nothing left of even a million ranks.
STEP = 0.025
POINTS = STEP * np.arange(-320, 321)
BELOW = np.array([NormalDist().cdf(point) for point in POINTS])


def expected_maximum(counts: IntArray) -> FloatArray:
    """Give the expected maximum of `counts` independent standard normals, of the same shape.

    It is the integral of [x > 0] - F(x)^count (H. A. David, Order Statistics, section 3.1).
    """
    distinct, back = np.unique(counts, return_inverse=True)
    differences = np.heaviside(POINTS, 0.5) - BELOW ** distinct[:, np.newaxis]
    maxima: FloatArray = STEP * differences.sum(axis=1)
    return maxima[back].reshape(np.shape(counts))


def busiest_rank_load(experts: Experts, expert_parallel: IntArray) -> FloatArray:
    """Give the pairs of the busiest expert rank over the even share, of the shape of `expert_parallel`."""
    if experts.placed_loads:
        return _placed(experts, expert_parallel)
    if not experts.load_spread:
        return np.ones(np.shape(expert_parallel))
    deviation = experts.load_spread * np.sqrt(expert_parallel / experts.experts)
    return np.minimum(1.0 + expected_maximum(expert_parallel) * deviation, expert_parallel)


def _placed(experts: Experts, expert_parallel: IntArray) -> FloatArray:
    """Give the measured load; of a degree between two known ones that of the next, which is no smaller."""
    degrees, loads = (np.array(column) for column in zip(*sorted(experts.placed_loads), strict=True))
    found: FloatArray = loads[np.minimum(np.searchsorted(degrees, expert_parallel), len(degrees) - 1)]
    return found
