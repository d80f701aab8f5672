"""The least of sums and of maxima over all splits, exactly, from the last stage to the first and back.

Of a cost c_k(a, o) of stage k that begins at layer a and takes option o of n_o layers,

    least sum      S_k(a) = min_o  c_k(a, o) + S_k+1(a + n_o)             S_P(L) = 0, elsewhere infinite
    least maximum  V_k(a) = min_o  max(c_k(a, o), V_k+1(a + n_o))         V_P(L) = -infinite, elsewhere infinite

S_0(0) and V_0(0) are the least over all splits. Each step is one operation over all starts and options at once.
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray


def least_sums_behind(costs: FloatArray, sizes: IntArray) -> FloatArray:
    """Give the least sum of each stage and those behind it, by the layer it begins at, [..., stages + 1, layers + 1].

    Args:
        costs: of each stage, start and option, [..., stages, layers, options]; infinite where it can't be.
        sizes: layers of each option, [options].

    """
    *outer, stages, layers, _ = costs.shape
    ends = _ends(layers, sizes)
    sums = np.full((*outer, stages + 1, layers + 1), np.inf)
    sums[..., stages, layers] = 0.0
    for stage in range(stages - 1, -1, -1):
        behind = sums[..., stage + 1, :][..., ends]
        sums[..., stage, :layers] = (costs[..., stage, :, :] + behind).min(axis=-1)
    return sums


def least_sums_before(costs: FloatArray, sizes: IntArray) -> FloatArray:
    """Give the least sum of the stages before each, by the layer it begins at, [..., stages + 1, layers + 1].

    Arguments as of least_sums_behind.
    """
    *outer, stages, layers, options = costs.shape
    starts = np.arange(1, layers + 1)[:, np.newaxis] - sizes
    # An option of no layers, as a stage that only passes on has, is none behind the last layer.
    begins, reach, option = (starts >= 0) & (starts < layers), np.clip(starts, 0, layers - 1), np.arange(options)
    sums = np.full((*outer, stages + 1, layers + 1), np.inf)
    sums[..., 0, 0] = 0.0
    for stage in range(stages):
        before = sums[..., stage, :][..., reach] + costs[..., stage, reach, option]
        sums[..., stage + 1, 1:] = np.where(begins, before, np.inf).min(axis=-1)
    return sums


def least_maxima(costs: FloatArray, sizes: IntArray) -> FloatArray:
    """Give the least maximum of each stage and those behind it, by the layer it begins at, [stages + 1, layers + 1].

    Arguments as of least_sums_behind.
    """
    stages, layers, _ = costs.shape
    ends = _ends(layers, sizes)
    values = np.full((stages + 1, layers + 1), np.inf)
    values[stages, layers] = -np.inf
    for stage in range(stages - 1, -1, -1):
        values[stage, :layers] = np.maximum(costs[stage], values[stage + 1][ends]).min(axis=1)
    return values


def _ends(layers: int, sizes: IntArray) -> IntArray:
    """Give where each option ends, [starts, options]; those that reach beyond the model cost infinitely much anyway."""
    return np.asarray(np.minimum(np.arange(layers)[:, np.newaxis] + sizes, layers))
