"""Counts of replicas that leave room for one another.

Where no load is above T, a device with a replica of load h > T / 2 has room for none above T - h beside it, and of
those above T - h >= T / 3 a device holds two at most. So with N replicas of a kind on G devices, for each h from T / 2
to 2 T / 3,

    N(load >= h) + N(load > T - h)  <=  2 G

whatever the slots of a device; those beyond two hold the lightest replicas at least, which T is taken less of. Greedy
counts look at the heaviest replicas alone, and may well have too many above T / 2. From them one slot at a time moves,
from one expert to another, for the least sum of what exceeds 2 G at some h.
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray

# Shares of T that h takes, moves of a slot, and experts that may give or take it.
SHARES = np.linspace(0.5, 0.68, 24)
MOST_MOVES = 16
MOST_TRIED = 24
# Layers, experts and shares at once.
MOST_CELLS = 2**20
NEVER = 1e9
# Among equals the one whose replicas are lighter than others.
TIE = 1e-6


def roomy_counts(weights: FloatArray, counts: IntArray, most: FloatArray, *, devices: int) -> IntArray:
    """Give counts of as many slots as `counts` [layers, experts] that come nearer to loads of `most` [layers]."""
    out = counts.copy()
    size = int(counts[0].sum()) // devices
    if size < 3 or devices < 2 or counts[0].sum() == counts.shape[1]:
        return out
    least = np.maximum(1, np.ceil(weights / most[:, None] * (1 - 1e-9))).astype(np.int64)
    room = most - np.partition(weights / counts, size - 3, axis=1)[:, : size - 2].sum(axis=1)
    at = np.flatnonzero(room > most / 2)
    some = max(1, MOST_CELLS // (weights.shape[1] * len(SHARES)))
    for first in range(0, len(at), some):
        part = at[first : first + some]
        out[part] = _moved(weights[part], out[part], room[part], least[part], devices=devices)
    return out


def _moved(weights: FloatArray, counts: IntArray, room: FloatArray, least: IntArray, *, devices: int) -> IntArray:
    out = counts.copy()
    open_ = np.arange(len(counts))
    for _ in range(MOST_MOVES):
        weight, count, allowed = weights[open_], out[open_], room[open_]
        here = _taken(weight, count, allowed)
        excess = here.sum(axis=1) - 2 * devices
        now = np.maximum(excess, 0.0).sum(axis=1)
        left = now > 0
        if not left.any():
            break
        open_, weight, count, allowed, here, excess, now = (
            part[left] for part in (open_, weight, count, allowed, here, excess, now)
        )
        taken = _taken(weight, count + 1, allowed) - here
        given = _taken(weight, np.maximum(count - 1, 1), allowed) - here
        can_give = (count > least[open_]) & (count > 1)
        taker, donor, after = _best(
            excess,
            taken,
            given,
            np.where(count < devices, -TIE * weight / count, NEVER),
            np.where(can_give, TIE * weight / np.maximum(count - 1, 1), NEVER),
        )
        better = after < now - 0.5
        open_ = open_[better]
        out[open_, taker[better]] += 1
        out[open_, donor[better]] -= 1
        if not len(open_):
            break
    return out


def _taken(weights: FloatArray, counts: IntArray, most: FloatArray) -> FloatArray:
    """Give what each expert's replicas take of 2 G at each h [layers, experts, shares]."""
    load = (weights / counts)[..., None]
    heavy = (most[:, None] * SHARES)[:, None]
    taken: FloatArray = ((load >= heavy).astype(np.float64) + (load > most[:, None, None] - heavy)) * counts[..., None]
    return taken


def _best(
    excess: FloatArray, taken: FloatArray, given: FloatArray, to_take: FloatArray, to_give: FloatArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """Give who takes a slot from whom in each layer, and what then exceeds.

    excess: [layers, shares]; taken, given: what a slot more, or less, changes [layers, experts, shares]; to_take,
    to_give: what speaks against it [layers, experts].
    """
    layers = np.arange(len(excess))
    some = min(MOST_TRIED, taken.shape[1])
    alone = [
        np.maximum(excess[:, None] + change, 0.0).sum(axis=2) + against
        for change, against in ((taken, to_take), (given, to_give))
    ]
    takers, donors = (np.argsort(cost, axis=1, kind="stable")[:, :some] for cost in alone)
    rows = layers[:, None]
    both = excess[:, None, None] + taken[rows, takers][:, :, None] + given[rows, donors][:, None]
    cost = np.maximum(both, 0.0).sum(axis=3) + to_take[rows, takers][:, :, None] + to_give[rows, donors][:, None]
    cost += NEVER * (takers[:, :, None] == donors[:, None])
    flat = cost.reshape(len(layers), -1)
    best = flat.argmin(axis=1)
    return takers[layers, best // some], donors[layers, best % some], flat[layers, best]
