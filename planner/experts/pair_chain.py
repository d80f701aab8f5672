"""Pairs of small groups share out their experts anew, over all layers at once.

The 2 S experts that two groups hold in a layer are split in C(2 S, S) ways. Whichever way, tokens between them and
other groups change nothing but by `tokens`; so the best splits of all layers together are a longest path, found exactly
by a dynamic program along the layers. Splits above the load cap are left out, but the one that is there.
"""

from functools import cache
from itertools import combinations

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.deadline import NEVER, Deadline

MOST_SIZE = 4
# Dynamic programs, pairs of groups times passes, beyond which it takes long. A pass that changes nothing is the last.
MOST_PAIRS = 130
GAIN = 1e-9


@cache
def _signs(size: int) -> FloatArray:
    """Give whether each split puts each of the experts into the first group [splits, 2 size], the present one first."""
    ways = list(combinations(range(2 * size), size))
    inside = np.zeros((len(ways), 2 * size))
    for way, chosen in enumerate(ways):
        inside[way, list(chosen)] = 1.0
    return inside


def shared_out(
    transitions: FloatArray,
    tokens: FloatArray | None,
    loads: FloatArray,
    home: IntArray,
    *,
    groups: int,
    cap: FloatArray,
    deadline: Deadline = NEVER,
) -> IntArray:
    """Give homes [layers, experts] in which no pair of groups keeps more tokens by sharing out anew.

    Arguments as of `Pull`. Homes stay as they are where groups are large or differ in size.
    """
    layers, experts = home.shape
    size = experts // groups
    if experts % groups or size > MOST_SIZE or layers == 1:
        return home
    held = np.argsort(home, axis=1, kind="stable").reshape(layers, groups, size)
    tried, changed = 0, True
    while changed and tried < MOST_PAIRS and not deadline.passed():
        changed = False
        for one, other in combinations(range(groups), 2):
            if tried == MOST_PAIRS or deadline.passed():
                break
            tried += 1
            own = np.concatenate([held[:, one], held[:, other]], axis=1)
            pulled = None if tokens is None else tokens[:, [one, other]]
            again = _best_splits(transitions, pulled, loads, own, cap=cap)
            changed |= bool((again != own).any())
            held[:, one], held[:, other] = again[:, :size], again[:, size:]
    out = np.empty_like(home)
    rows = np.arange(layers)[:, None]
    out[rows, held.reshape(layers, -1)] = np.repeat(np.arange(groups), size)
    return out


def _best_splits(
    transitions: FloatArray, tokens: FloatArray | None, loads: FloatArray, own: IntArray, *, cap: FloatArray
) -> IntArray:
    """Give the experts [layers, 2 size] of two groups, those of the first one first."""
    layers, both = own.shape
    inside = _signs(both // 2)
    rows = np.arange(layers)[:, None]
    weight = loads[rows, own]
    first = weight @ inside.T
    allowed = np.maximum(first, weight.sum(axis=1, keepdims=True) - first) <= cap[:, None]
    allowed[:, 0] = True
    alone = np.where(allowed, 0.0, -np.inf)
    if tokens is not None:
        mine, theirs = tokens[rows, 0, own], tokens[rows, 1, own]
        alone += mine @ inside.T + theirs @ (1 - inside).T
    moved = transitions[np.arange(layers - 1)[:, None, None], own[:-1, :, None], own[1:, None, :]]
    stay = inside @ moved @ inside.T + (1 - inside) @ moved @ (1 - inside).T
    best, came = alone[0], np.zeros((layers, len(inside)), np.int64)
    for layer in range(1, layers):
        through = best[:, None] + stay[layer - 1]
        came[layer] = through.argmax(axis=0)
        best = through.max(axis=0) + alone[layer]
    now = alone[:, 0].sum() + stay[:, 0, 0].sum()
    if best.max() <= now * (1 + GAIN):
        return own
    path = [int(best.argmax())]
    for layer in range(layers - 1, 0, -1):
        path.append(int(came[layer, path[-1]]))
    order = np.argsort(-inside[path[::-1]], axis=1, kind="stable")
    return np.take_along_axis(own, order, axis=1)
