"""Replicas onto devices, heaviest first, all layers at once."""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.counts import replicas


def packed(weights: FloatArray, counts: IntArray, *, devices: int) -> IntArray:
    """Give the experts [layers, devices, slots of a device] of a first placement.

    The replicas, heaviest first, each go to the least loaded device that has a slot left and doesn't hold the expert
    (R. L. Graham, Bounds on multiprocessing timing anomalies, 1969, with as many slots on each device).
    weights, counts: [layers, experts]; the counts of a layer sum to a multiple of `devices`, none is above it.
    """
    each = weights / counts
    expert = replicas(counts)
    layers, slots = expert.shape
    rows = np.arange(layers)
    order = np.argsort(-each[rows[:, None], expert], axis=1, kind="stable")
    expert = np.take_along_axis(expert, order, axis=1)
    placed = np.full((layers, devices, slots // devices), -1, np.int64)
    load, used = np.zeros((layers, devices)), np.zeros((layers, devices), np.int64)
    holds = np.zeros((layers, weights.shape[1], devices), bool)
    for slot in range(slots):
        now = expert[:, slot]
        cost = np.where(holds[rows, now] | (used == placed.shape[2]), np.inf, load)
        device = cost.argmin(axis=1)
        for row in np.flatnonzero(np.isinf(cost[rows, device])):
            device[row] = _make_room(placed[row], holds[row], each[row], load[row], used[row], int(now[row]))
        placed[rows, device, used[rows, device]] = now
        used[rows, device] += 1
        load[rows, device] += each[rows, now]
        holds[rows, now, device] = True
    return placed


def packed_largest(weights: FloatArray, counts: IntArray, *, devices: int) -> FloatArray:
    """Give the largest device load [layers] of a first placement that may put an expert on a device twice.

    It is what balancers reach that don't mind it, and so what a placement is to be no worse than where that can be.
    """
    each = weights / counts
    rows = np.arange(len(weights))
    loads = -np.sort(-each[rows[:, None], replicas(counts)], axis=1)
    load, used = np.zeros((len(weights), devices)), np.zeros((len(weights), devices), np.int64)
    most = loads.shape[1] // devices
    for slot in range(loads.shape[1]):
        device = np.where(used == most, np.inf, load).argmin(axis=1)
        load[rows, device] += loads[:, slot]
        used[rows, device] += 1
    largest: FloatArray = load.max(axis=1)
    return largest


def _make_room(placed: IntArray, holds: IntArray, each: FloatArray, load: FloatArray, used: IntArray, now: int) -> int:
    """Move an expert from a full device without `now` to one with a slot left, and give the device that it left.

    Each device with a slot left holds `now`, so the full one holds more experts than it: one of them isn't there.
    """
    target = int(used.argmin())
    source = int(np.where(holds[now], np.inf, load).argmin())
    slot = next(slot for slot, expert in enumerate(placed[source]) if not holds[expert, target])
    moved = placed[source, slot]
    placed[target, used[target]] = moved
    placed[source, slot] = placed[source, -1]
    placed[source, -1] = -1
    for device, change in ((source, -1), (target, 1)):
        used[device] += change
        load[device] += change * each[moved]
        holds[moved, device] = change > 0
    return source
