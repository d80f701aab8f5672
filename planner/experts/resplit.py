"""Pairs of devices share out their experts anew, many pairs and all layers at once.

For a pair with loads L1, L2 the larger one is least where |L1 - L2| is. Devices of up to 5 slots try each way to split
their 2 S experts, (2 S)! / (2 S! S!); larger ones each exchange of one expert against one, S^2. An expert that both
hold stays on both.
"""

from functools import cache
from itertools import combinations

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray

MOST_SPLIT = 5
# A pair is left as it is unless it gains more than rounding.
GAIN = 1e-9


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
    rows = np.arange(len(placed))[:, None]
    experts = np.concatenate([placed[rows, first], placed[rows, second]], axis=2)
    loads = each[rows[:, :, None], experts]
    size = placed.shape[2]
    # With as many slots as experts there are no replicas to keep apart.
    single = placed.shape[1] * size == each.shape[1]
    if sparing or size > MOST_SPLIT:
        return _one_exchange(experts, loads, single=single)
    return _every_split(experts, loads if single else loads + _apart(experts, loads))


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
        same = experts[..., :size, None] == experts[..., None, size:]
        left, right = np.where(same.any(axis=3), np.inf, left), np.where(same.any(axis=2), -np.inf, right)
    before = loads[..., :size].sum(axis=2) - loads[..., size:].sum(axis=2)
    uneven = np.abs(before[..., None, None] - 2.0 * (left[..., :, None] - right[..., None, :]))
    flat = uneven.reshape(*before.shape, size * size)
    best = flat.argmin(axis=2)
    least = np.take_along_axis(flat, best[..., None], axis=2)[..., 0]
    gains = least < np.abs(before) * (1 - GAIN)
    layer, pair = np.nonzero(gains)
    one, other = best[layer, pair] // size, size + best[layer, pair] % size
    out = experts.copy()
    out[layer, pair, one], out[layer, pair, other] = experts[layer, pair, other], experts[layer, pair, one]
    return out, np.where(gains, least, np.abs(before))
