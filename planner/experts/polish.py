"""Exchanges between devices until the most loaded one is near enough to the bound."""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.deadline import NEVER, Deadline
from meshwright.planner.experts.resplit import relieve, resplit, tries

# Layers that no pair of this many rounds changed are as good as pairs make them.
IDLE_ROUNDS = 6
SEED = 20
# Splits tried at once: of more, layers take turns.
MOST_TRIED = 2**21


def device_loads(placed: IntArray, each: FloatArray) -> FloatArray:
    """Give the load of each device [layers, devices] of a placement [layers, devices, slots of a device]."""
    loads: FloatArray = each[np.arange(len(placed))[:, None, None], placed].sum(axis=2)
    return loads


def polished(
    placed: IntArray, each: FloatArray, *, enough: FloatArray, rounds: int, deadline: Deadline = NEVER
) -> IntArray:
    """Give a placement whose largest loads aren't above those of `placed`.

    Round by round all devices of the layers that are still above `enough` [layers] share out their experts in pairs,
    the most loaded with the least loaded in turn with pairs dealt at random, alike for all layers.
    """
    out = placed.copy()
    _, devices, size = placed.shape
    some = max(1, MOST_TRIED // (devices * tries(size)))
    for first in range(0, len(placed), some):
        part = slice(first, first + some)
        out[part] = _polished(out[part], each[part], enough[part], rounds, deadline)
    return out


def _polished(placed: IntArray, each: FloatArray, enough: FloatArray, rounds: int, deadline: Deadline) -> IntArray:
    out = placed.copy()
    devices = placed.shape[1]
    half = devices // 2
    deal = np.random.default_rng(SEED)
    open_, idle = np.arange(len(placed)), np.zeros(len(placed), np.int64)
    for turn in range(rounds):
        loads = device_loads(out[open_], each[open_])
        left = (loads.max(axis=1) > enough[open_]) & (idle[open_] < IDLE_ROUNDS)
        open_, loads = open_[left], loads[left]
        if not len(open_) or not half or deadline.passed():
            break
        again = _round(out[open_], each[open_], loads, turn, deal)
        idle[open_] = np.where((again == out[open_]).all(axis=(1, 2)), idle[open_] + 1, 0)
        out[open_] = again
    return out


def _round(placed: IntArray, each: FloatArray, loads: FloatArray, turn: int, deal: np.random.Generator) -> IntArray:
    if turn % 3 == 2:
        return relieve(placed, each, loads)
    devices = loads.shape[1]
    order = np.argsort(-loads, axis=1, kind="stable")
    pairs = np.arange(devices) if turn % 3 == 0 else deal.permutation(devices)
    half = devices // 2
    return resplit(placed, each, order[:, pairs[:half]], order[:, pairs[::-1][:half]])


def kicked(placed: IntArray, seed: int) -> IntArray:
    """Give the placement after a few exchanges of one expert between devices drawn at random, alike for all layers."""
    draw = np.random.default_rng((SEED, seed))
    _, devices, size = placed.shape
    out = placed.copy()
    for _ in range(max(2, devices // 8)):
        one, other = draw.choice(devices, 2, replace=False)
        left, right = draw.integers(size, size=2)
        mine, theirs = out[:, one, left].copy(), out[:, other, right].copy()
        possible = ~((out[:, one] == theirs[:, None]).any(axis=1) | (out[:, other] == mine[:, None]).any(axis=1))
        out[:, one, left] = np.where(possible, theirs, mine)
        out[:, other, right] = np.where(possible, mine, theirs)
    return out
