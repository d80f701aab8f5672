"""What no placement's largest device load is below.

A layer of experts w_1 >= ... >= w_E in P slots on G devices, S = P / G each, has the largest load T only if

    mean        G T >= sum of w
    replicas    each replica fits beside the lightest company: w_e / c_e + m <= T, with m the lightest S - 1 others;
                so c_e >= w_e / (T - m), and these counts sum to at most P
    counting    of the k G + 1 heaviest replicas some device holds k + 1: the k + 1 lightest of them weigh at most T
    heaviest    the i heaviest replicas are on j <= i devices, which hold the lightest j S - i at least beside them:
                they weigh at most j T for one of these j
    pairs       of the i heaviest two share a device, or i devices hold one each and i (S - 1) others, the heaviest of
                which beside one of them: so the i-th heaviest and the i (S - 1)-th lightest, or the two lightest of the
                i heaviest, weigh at most T with the lightest S - 2

An empty slot counts as a replica without load. The counts are free beyond those that T forces: the `spare` slots left
are empty or split replicas further. A spare slot makes one of the lightest S - 1 vanish at best, and of the heaviest
replicas it lightens those of one expert: the n-th heaviest is then no lighter than the one that was as many places
later as `spare` experts have replicas. All conditions get easier as T grows, so the least T that meets them is found by
bisection.
"""

import numpy as np

from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray
from meshwright.planner.experts.counts import greedy_counts, replicas
from meshwright.planner.experts.deadline import NEVER, Deadline

STEPS = 44
# A quotient that is whole but for rounding isn't rounded up.
ROUNDING = 1e-12


def lower_bound(weights: FloatArray, *, slots: int, devices: int, deadline: Deadline = NEVER) -> FloatArray:
    """Give the lower bound of the largest device load [layers] of `weights` [layers, experts].

    slots: of all devices, a multiple of them, at least the experts and at most experts x devices. deadline: when to
    stop raising the bound.
    """
    heaviest_first = -np.sort(-weights, axis=1)
    counts = greedy_counts(heaviest_first, slots=slots, devices=devices)
    mean = heaviest_first.sum(axis=1) / devices
    low: FloatArray = np.maximum(mean, (heaviest_first / counts).max(axis=1))
    at = np.flatnonzero(low > 0)
    if deadline.passed():
        return low
    at = at[~_possible(heaviest_first[at], low[at], slots=slots, devices=devices)]
    high = low + heaviest_first[:, 0] + mean
    for _ in range(STEPS if len(at) else 0):
        if deadline.passed():
            break
        middle = (low[at] + high[at]) / 2
        possible = _possible(heaviest_first[at], middle, slots=slots, devices=devices)
        low[at], high[at] = np.where(possible, low[at], middle), np.where(possible, middle, high[at])
    return low


def _possible(weights: FloatArray, most: FloatArray, *, slots: int, devices: int) -> BoolArray:
    """Say of each layer whether the conditions allow a largest load of `most` [layers]."""
    counts, possible = _forced(weights, most, slots=slots, devices=devices)
    at = np.flatnonzero(possible)
    if len(at):
        heaviest = _heaviest(weights[at], counts[at], slots=slots)
        for condition in (_countable, _holdable, _companionable):
            possible[at] &= condition(heaviest, most[at], devices=devices)
    return possible


def _forced(weights: FloatArray, most: FloatArray, *, slots: int, devices: int) -> tuple[IntArray, BoolArray]:
    """Give the counts [layers, experts] that a largest load of `most` forces, and whether the slots hold them."""
    size = slots // devices
    company = np.zeros(len(weights))
    # Company that grows as slots are used up forces more replicas; a few rounds of it are as sound as all.
    for turn in range(3):
        room = np.maximum(most - company, most * 1e-9)
        counts = np.maximum(1, np.ceil(weights / room[:, None] * (1 - ROUNDING))).astype(np.int64)
        spare = slots - counts.sum(axis=1)
        if turn < 2 and size > 1:
            lightest = np.sort(weights / counts, axis=1)[:, : size - 1]
            full = np.arange(1, size) <= (size - 1 - spare)[:, None]
            company = np.maximum(company, np.where(full, lightest, 0.0).sum(axis=1))
    return counts, (spare >= 0) & (counts.max(axis=1) <= devices)


def _heaviest(weights: FloatArray, counts: IntArray, *, slots: int) -> FloatArray:
    """Give lower bounds of the heaviest, second heaviest, ... replica [layers, slots] where counts may still grow."""
    layers = len(weights)
    spare = slots - counts.sum(axis=1)
    padded = np.concatenate([counts, spare[:, None]], axis=1)
    each = np.concatenate([weights / counts, np.zeros((layers, 1))], axis=1)
    loads = -np.sort(-np.take_along_axis(each, replicas(padded), axis=1), axis=1)
    most_split = np.cumsum(-np.sort(-counts, axis=1), axis=1)
    lost = np.where(spare > 0, most_split[np.arange(layers), np.minimum(spare, counts.shape[1]) - 1], 0)
    later = np.arange(slots) + lost[:, None]
    return np.where(later < slots, np.take_along_axis(loads, np.minimum(later, slots - 1), axis=1), 0.0)


def _countable(heaviest: FloatArray, most: FloatArray, *, devices: int) -> BoolArray:
    """Say whether the lightest k + 1 of the k G + 1 heaviest weigh at most `most`, for each k."""
    slots = heaviest.shape[1]
    k = np.arange(1, slots // devices)
    below = np.concatenate([np.zeros((len(heaviest), 1)), np.cumsum(heaviest, axis=1)], axis=1)
    weigh = below[:, k * devices + 1] - below[:, k * devices - k]
    fits: BoolArray = (weigh * (1 - ROUNDING) <= most[:, None]).all(axis=1)
    return fits


def _holdable(heaviest: FloatArray, most: FloatArray, *, devices: int) -> BoolArray:
    """Say whether the i heaviest fit on some j <= i devices with the lightest of all others beside them, for each i.

    j devices leave j T less the lightest j S - i; j = i is best where the S lightest that it adds to j = i - 1 weigh at
    most T. Only such i are asked: for others more could be left by fewer devices.
    """
    size = heaviest.shape[1] // devices
    i = np.arange(1, devices + 1)
    zero = np.zeros((len(heaviest), 1))
    top = np.concatenate([zero, np.cumsum(heaviest, axis=1)], axis=1)[:, i]
    light = np.concatenate([zero, np.cumsum(heaviest[:, ::-1], axis=1)], axis=1)
    beside = light[:, i * (size - 1)]
    added = beside - light[:, np.maximum(i * (size - 1) - size, 0)]
    asked = np.logical_and.accumulate(added <= most[:, None], axis=1)
    fits: BoolArray = (~asked | ((top + beside) * (1 - ROUNDING) <= i * most[:, None])).all(axis=1)
    return fits


def _companionable(heaviest: FloatArray, most: FloatArray, *, devices: int) -> BoolArray:
    """Say whether the i-th heaviest has room beside one of the i (S - 1) lightest or of the i heaviest, for each i."""
    size = heaviest.shape[1] // devices
    if size == 1:
        return heaviest[:, 0] * (1 - ROUNDING) <= most
    i = np.arange(2, devices + 1)
    lightest = heaviest[:, ::-1]
    beside = np.minimum(heaviest[:, i - 2], lightest[:, i * (size - 1) - 1])
    others = lightest[:, : size - 2].sum(axis=1, keepdims=True)
    fits: BoolArray = ((heaviest[:, i - 1] + beside + others) * (1 - ROUNDING) <= most[:, None]).all(axis=1)
    return fits
