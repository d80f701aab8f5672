"""Pairs of devices share out their experts anew, many pairs and all layers at once.

For a pair with loads L1, L2 the larger one is least where |L1 - L2| is. Devices of up to 5 slots try each way to split
their 2 S experts, (2 S)! / (2 S! S!); larger ones each exchange of one expert against one, S^2. Exchanging experts of
loads a and b changes L1 - L2 by -2 (a - b): devices of many slots, sorted, only look at the two b next to
a - (L1 - L2) / 2. An expert that both hold stays on both.
"""

from functools import cache
from itertools import combinations
from math import comb

import numpy as np

from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray

MOST_SPLIT = 5
MOST_SQUARE = 24
# A pair is left as it is unless it gains more than rounding.
GAIN = 1e-9


def tries(size: int) -> int:
    """Give how many ways two devices of `size` slots try, roughly."""
    if size <= MOST_SPLIT:
        return comb(2 * size, size) // 2
    return size * size if size <= MOST_SQUARE else 8 * size


def resplit(placed: IntArray, each: FloatArray, first: IntArray, second: IntArray) -> IntArray:
    """Give the placement after the devices `first` and `second` [layers, pairs] have split their experts anew.

    placed: experts [layers, devices, slots of a device]; each: load of one replica [layers, experts]. No device may
    be in two pairs of a layer. No pair's larger load grows.
    """
    rows = np.arange(len(placed))[:, None]
    size = placed.shape[2]
    again, _ = _split_anew(placed, each, first, second)
    out = placed.copy()
    out[rows, first], out[rows, second] = again[..., :size], again[..., size:]
    return out


def shaken(
    placed: IntArray, each: FloatArray, first: IntArray, second: IntArray, *, warmth: FloatArray, chance: FloatArray
) -> IntArray:
    """Give the placement after the devices `first` and `second` have taken some split, an even one rather than others.

    It is the one with the least of ((L1 - L2) / warmth)^2 + chance. Arguments as of `resplit`, of up to MOST_SPLIT
    slots a device; warmth: [layers]; chance: [pairs, tries].
    """
    rows = np.arange(len(placed))[:, None]
    size = placed.shape[2]
    experts, loads = _of_pairs(placed, each, first, second)
    signs, orders = _ways(size)
    way = (np.square(loads @ signs / warmth[:, None, None]) + chance).argmin(axis=2)
    again = np.take_along_axis(experts, orders[way], axis=2)
    out = placed.copy()
    out[rows, first], out[rows, second] = again[..., :size], again[..., size:]
    return out


def relieve(placed: IntArray, each: FloatArray, loads: FloatArray, *, sparing: bool = False) -> IntArray:
    """Give the placement after the most loaded device has shared with the one that leaves the pair the least loaded.

    loads: of the devices [layers, devices]. sparing: whether they exchange one expert against one, however few they
    hold.
    """
    layers, devices, size = placed.shape
    rows = np.arange(layers)
    heaviest = loads.argmax(axis=1)
    others = np.arange(devices - 1) + (np.arange(devices - 1) >= heaviest[:, None])
    pairs = np.repeat(heaviest[:, None], devices - 1, axis=1), others
    again, uneven = _split_anew(placed, each, *pairs, sparing=sparing)
    larger = np.take_along_axis(loads, others, axis=1) + uneven
    best = larger.argmin(axis=1)
    out = placed.copy()
    out[rows, heaviest], out[rows, others[rows, best]] = again[rows, best, :size], again[rows, best, size:]
    return out


def _split_anew(
    placed: IntArray, each: FloatArray, first: IntArray, second: IntArray, *, sparing: bool = False
) -> tuple[IntArray, FloatArray]:
    """Give the experts of each pair, those of the first device first, and by how much the loads then differ."""
    if sparing or placed.shape[2] > MOST_SPLIT:
        experts, loads = _of_pairs(placed, each, first, second, apart=False)
        return _one_exchange(experts, loads, single=_single(placed, each))
    return _every_split(*_of_pairs(placed, each, first, second))


def _single(placed: IntArray, each: FloatArray) -> bool:
    """Say whether there are as many slots as experts, and so no replicas to keep apart."""
    return bool(placed.shape[1] * placed.shape[2] == each.shape[1])


def _of_pairs(
    placed: IntArray, each: FloatArray, first: IntArray, second: IntArray, *, apart: bool = True
) -> tuple[IntArray, FloatArray]:
    """Give the experts [layers, pairs, 2 size] and their loads, with what keeps replicas apart."""
    rows = np.arange(len(placed))[:, None]
    experts = np.concatenate([placed[rows, first], placed[rows, second]], axis=2)
    loads = each[rows[:, :, None], experts]
    return experts, loads + _apart(experts, loads) if apart and not _single(placed, each) else loads


@cache
def _ways(size: int) -> tuple[FloatArray, IntArray]:
    """Give the signs [2 size, ways] and orders [ways, 2 size] of all splits, the one that is there first."""
    halves = [(0, *rest) for rest in combinations(range(1, 2 * size), size - 1)]
    orders = np.array([[*half, *(item for item in range(2 * size) if item not in half)] for half in halves])
    signs = -np.ones((2 * size, len(halves)))
    for way, half in enumerate(halves):
        signs[list(half), way] = 1.0
    return signs, orders


def _apart(experts: IntArray, loads: FloatArray) -> FloatArray:
    """Give what both replicas of an expert that both devices hold weigh more: more than all else, a power of 3 each.

    No split with two of them on one device is then as even as the one that is there.
    """
    size = experts.shape[2] // 2
    same = experts[..., :size, None] == experts[..., None, size:]
    shared = same.any(axis=3)
    apart = 4.0 * size * max(float(loads.max()), 1.0) * np.where(shared, 3.0 ** np.cumsum(shared, axis=2), 0.0)
    return np.concatenate([apart, (same * apart[..., None]).sum(axis=2)], axis=2)


def _every_split(experts: IntArray, loads: FloatArray) -> tuple[IntArray, FloatArray]:
    """Give the experts in the order of the best of all splits, and by how much their halves differ."""
    signs, orders = _ways(experts.shape[2] // 2)
    uneven = np.abs(loads @ signs)
    way = uneven.argmin(axis=2)
    least = np.take_along_axis(uneven, way[..., None], axis=2)[..., 0]
    kept = least >= uneven[..., 0] * (1 - GAIN)
    way[kept] = 0
    return np.take_along_axis(experts, orders[way], axis=2), np.where(kept, uneven[..., 0], least)


def _one_exchange(experts: IntArray, loads: FloatArray, *, single: bool) -> tuple[IntArray, FloatArray]:
    """Give the experts after the best exchange of one between the halves, and by how much these differ."""
    size = experts.shape[2] // 2
    left, right = loads[..., :size], loads[..., size:]
    if not single:
        shared = _shared(experts)
        left, right = np.where(shared[..., :size], np.inf, left), np.where(shared[..., size:], -np.inf, right)
    before = loads[..., :size].sum(axis=2) - loads[..., size:].sum(axis=2)
    one, other, least = (_of_all if size <= MOST_SQUARE else _of_nearest)(left, right, before)
    gains = least < np.abs(before) * (1 - GAIN)
    layer, pair = np.nonzero(gains)
    mine, theirs = one[layer, pair], size + other[layer, pair]
    out = experts.copy()
    out[layer, pair, mine], out[layer, pair, theirs] = experts[layer, pair, theirs], experts[layer, pair, mine]
    return out, np.where(gains, least, np.abs(before))


def _of_all(left: FloatArray, right: FloatArray, before: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Give which two slots of each pair's halves are best exchanged, and by how much the halves then differ."""
    size = left.shape[2]
    uneven = np.abs(before[..., None, None] - 2.0 * (left[..., :, None] - right[..., None, :]))
    flat = uneven.reshape(*before.shape, size * size)
    best = flat.argmin(axis=2)
    return best // size, best % size, np.take_along_axis(flat, best[..., None], axis=2)[..., 0]


def _of_nearest(left: FloatArray, right: FloatArray, before: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Give the same by the loads of the second half next below and above those wanted for each of the first one."""
    size = left.shape[2]
    order = np.argsort(np.concatenate([right, left - before[..., None] / 2], axis=2), axis=2, kind="stable")
    place = np.arange(2 * size)
    theirs = order < size
    below = np.maximum.accumulate(np.where(theirs, place, 0), axis=2)
    above = np.minimum.accumulate(np.where(theirs, place, 2 * size - 1)[..., ::-1], axis=2)[..., ::-1]
    mine = np.take_along_axis(left, np.maximum(order - size, 0), axis=2)
    best, found = np.full(before.shape, np.inf), [np.zeros(before.shape, np.int64)] * 2
    for near in (below, above):
        other = np.take_along_axis(order, near, axis=2)
        load = np.take_along_axis(right, np.minimum(other, size - 1), axis=2)
        # Where none is below, or above, the next is another one wanted.
        possible = ~theirs & (other < size)
        uneven = np.where(possible, np.abs(before[..., None] - 2.0 * (mine - load)), np.inf)
        at = uneven.argmin(axis=2)[..., None]
        least = np.take_along_axis(uneven, at, axis=2)[..., 0]
        slots = (np.take_along_axis(order, at, axis=2)[..., 0] - size, np.take_along_axis(other, at, axis=2)[..., 0])
        found = [np.where(least < best, new, old) for new, old in zip(slots, found, strict=True)]
        best = np.minimum(best, least)
    return found[0], found[1], best


def _shared(experts: IntArray) -> BoolArray:
    """Give which experts are in both halves."""
    size = experts.shape[2] // 2
    if size <= MOST_SQUARE:
        same = experts[..., :size, None] == experts[..., None, size:]
        return np.concatenate([same.any(axis=3), same.any(axis=2)], axis=2)
    order = np.argsort(experts, axis=2, kind="stable")
    again = np.diff(np.take_along_axis(experts, order, axis=2), axis=2) == 0
    none = np.zeros((*again.shape[:2], 1), bool)
    shared = np.zeros(experts.shape, bool)
    np.put_along_axis(
        shared, order, np.concatenate([again, none], axis=2) | np.concatenate([none, again], axis=2), axis=2
    )
    return shared
