"""How many replicas each expert has."""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray


def greedy_counts(weights: FloatArray, *, slots: int, devices: int) -> IntArray:
    """Give replica counts [layers, experts] of `weights` [layers, experts]; each row's sum is `slots`.

    Each slot beyond one an expert goes to the expert whose replicas are heaviest, as long as a device is without it.
    No other counts have a lighter heaviest replica: giving any other expert the slot leaves this one where it is.
    """
    layers, experts = weights.shape
    counts = np.ones((layers, experts), np.int64)
    each = weights.astype(np.float64, copy=True)
    if devices == 1:
        return counts
    rows = np.arange(layers)
    for _ in range(slots - experts):
        heaviest = each.argmax(axis=1)
        counts[rows, heaviest] += 1
        have = counts[rows, heaviest]
        each[rows, heaviest] = np.where(have < devices, weights[rows, heaviest] / have, -1.0)
    return counts


def replicas(counts: IntArray) -> IntArray:
    """Give the expert of each replica [layers, slots], in the order of experts, from counts that sum to the same."""
    layers, experts = counts.shape
    expert = np.broadcast_to(np.arange(experts), counts.shape).ravel()
    return np.repeat(expert, counts.ravel()).reshape(layers, -1)
