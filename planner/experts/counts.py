"""How many replicas each expert has."""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray

# A quotient that is whole but for rounding isn't rounded up.
ROUNDING = 1e-12


def greedy_counts(weights: FloatArray, *, slots: int, devices: int) -> IntArray:
    """Give replica counts [layers, experts] of `weights` [layers, experts]; each row's sum is `slots`.

    Each slot beyond one an expert goes to the expert whose replicas are heaviest, as long as a device is without it.
    No other counts have a lighter heaviest replica: giving any other expert the slot leaves this one where it is.
    """
    layers, experts = weights.shape
    if devices == 1:
        return np.ones((layers, experts), np.int64)
    counts = _certain(weights, spare=slots - experts, devices=devices)
    each = np.where(counts < devices, weights / counts, -1.0)
    left = slots - counts.sum(axis=1)
    rows = np.arange(layers)
    for turn in range(int(left.max())):
        at = rows if turn < left.min() else np.flatnonzero(left > turn)
        heaviest = each[at].argmax(axis=1)
        counts[at, heaviest] += 1
        have = counts[at, heaviest]
        each[at, heaviest] = np.where(have < devices, weights[at, heaviest] / have, -1.0)
    return counts


def _certain(weights: FloatArray, *, spare: int, devices: int) -> IntArray:
    """Give counts that each expert has at least.

    Replicas of at most sum of w / spare need no more than w spare / (sum of w) + 1 each, and so no more slots than
    there are: when those are used up, none is heavier than that.
    """
    most = weights.sum(axis=1, keepdims=True) / max(spare, 1)
    most = np.where(most > 0, most, 1.0)
    certain: IntArray = np.clip(np.ceil(weights / most * (1 - ROUNDING)), 1, devices if spare else 1).astype(np.int64)
    return certain


def held_counts(slots: IntArray, experts: int) -> IntArray:
    """Give how many slots hold each expert [rows, experts] of slots [rows, ...]; empty ones, -1, hold none."""
    # Empty slots fall into a first column, which is left out.
    return np.stack([np.bincount(row.ravel() + 1, minlength=experts + 1)[1:] for row in slots])


def replicas(counts: IntArray) -> IntArray:
    """Give the expert of each replica [layers, slots], in the order of experts, from counts that sum to the same."""
    layers, experts = counts.shape
    expert = np.broadcast_to(np.arange(experts), counts.shape).ravel()
    return np.repeat(expert, counts.ravel()).reshape(layers, -1)
