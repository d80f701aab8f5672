"""Affinity of few experts, exactly: a dynamic program along the layers.

A state of a layer is a partition of its experts into K groups of S = E / K without names. From partition A to B of the
next layer the tokens that stay are at most

    stay(A, B) = max over orders p of sum over k of M[A_k, B_p(k)]        M[X, Y] = sum of M[i, j] over i in X, j in Y

since naming the groups of a layer anew changes nothing beyond it. Partitions with a group above the load cap are left
out; a layer that has none below it keeps those whose heaviest group is lightest. So

    best(1, A) = 0,   best(l + 1, B) = max over A of best(l, A) + stay(A, B)

gives the most tokens that can stay, and the placement by going back.
"""

from functools import cache
from itertools import combinations

import numpy as np

from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray
from meshwright.planner.experts.deadline import NEVER, Deadline

# Partitions of a layer, and products of two of them with the steps to match their groups, beyond which it takes long.
MOST_PARTITIONS = 500
MOST_WORK = 3e6


@cache
def partitions(experts: int, groups: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Give the partitions of experts into groups of the same size, or none where there are more than are searched."""
    found: list[tuple[tuple[int, ...], ...]] = [()]
    size = experts // groups
    for _ in range(groups):
        found = [
            (*before, (rest[0], *others))
            for before in found
            for rest in [[expert for expert in range(experts) if not any(expert in group for group in before)]]
            for others in combinations(rest[1:], size - 1)
        ]
        if len(found) > MOST_PARTITIONS * size:
            return ()
    return tuple(found)


def solvable(experts: int, groups: int) -> bool:
    """Say whether the dynamic program is quick: up to 8 experts, 12 on two devices, 9 on three."""
    if experts % groups or experts > 12 or groups > 8:
        return False
    if experts == groups:
        return True
    count = len(partitions(experts, groups))
    return 0 < count <= MOST_PARTITIONS and count * count * groups * 2**groups <= MOST_WORK


def least_largest(loads: FloatArray, *, groups: int) -> FloatArray:
    """Give the least load that the heaviest of `groups` groups of as many experts has [layers], of all partitions.

    loads: [layers, experts], for which `solvable` says yes.
    """
    experts = loads.shape[1]
    if experts == groups:
        heaviest: FloatArray = loads.max(axis=1)
        return heaviest
    weights = loads[:, np.array(partitions(experts, groups))].sum(axis=3)
    least: FloatArray = weights.max(axis=2).min(axis=1)
    return least


def chained(
    transitions: FloatArray, loads: FloatArray, *, groups: int, cap: FloatArray, deadline: Deadline = NEVER
) -> IntArray | None:
    """Give the group of each expert [layers, experts] for which the most tokens stay; None where the time is over.

    transitions: [layers - 1, experts, experts]; loads: [layers, experts]; cap: the most load of a group [layers].
    """
    layers, experts = loads.shape
    if experts == groups:
        return _matched_all(transitions)
    states = np.array(partitions(experts, groups))
    weights = loads[:, states].sum(axis=3)
    allowed = _allowed(weights.max(axis=2), cap)
    member = (states[..., None] == np.arange(experts)).any(axis=2)
    blocks, index = np.unique(member.reshape(-1, experts), axis=0, return_inverse=True)
    index = index.reshape(len(states), groups)
    inside = blocks.astype(np.float64)
    between = inside @ transitions @ inside.T
    best = np.where(allowed[0], 0.0, -np.inf)
    came = np.zeros((layers, len(states)), np.int64)
    for layer in range(1, layers):
        if deadline.passed():
            return None
        through = best[:, None] + _stay(between[layer - 1], index)
        came[layer] = through.argmax(axis=0)
        best = np.where(allowed[layer], through.max(axis=0), -np.inf)
    path = [int(best.argmax())]
    for layer in range(layers - 1, 0, -1):
        path.append(int(came[layer, path[-1]]))
    return _named(between, index, states, path[::-1])


def _allowed(heaviest: FloatArray, cap: FloatArray) -> BoolArray:
    least = heaviest.min(axis=1)
    allowed: BoolArray = heaviest <= np.maximum(cap, least)[:, None] * (1 + 1e-9)
    return allowed


def _stay(between: FloatArray, index: IntArray) -> FloatArray:
    """Give stay(A, B) of all pairs of partitions: the best match of their groups, by subsets of B's."""
    groups = index.shape[1]
    pair = [[between[index[:, k][:, None], index[:, j][None, :]] for j in range(groups)] for k in range(groups)]
    best = {0: np.zeros((len(index), len(index)))}
    for k in range(groups):
        best = {
            mask: np.maximum.reduce([best[mask ^ 1 << j] + pair[k][j] for j in range(groups) if mask >> j & 1])
            for mask in (sum(1 << j for j in chosen) for chosen in combinations(range(groups), k + 1))
        }
    return best[2**groups - 1]


def _named(between: FloatArray, index: IntArray, states: IntArray, path: list[int]) -> IntArray:
    """Name the groups along the path so that the most tokens stay."""
    groups = index.shape[1]
    order = np.arange(groups)
    out = np.zeros((len(path), states.shape[1] * states.shape[2]), np.int64)
    for layer, state in enumerate(path):
        if layer:
            order = matched(between[layer - 1][np.ix_(index[path[layer - 1]], index[state])][None])[0][order]
        # order[name]: which group of the partition has the name
        for name in range(groups):
            out[layer, states[state, order[name]]] = name
    return out


def _matched_all(transitions: FloatArray) -> IntArray:
    """One expert a device: each two layers are matched for themselves, and names passed on."""
    layers, experts = len(transitions) + 1, transitions.shape[1]
    out = np.empty((layers, experts), np.int64)
    holds = np.arange(experts)
    out[0] = holds
    for layer, partner in enumerate(matched(transitions), start=1):
        holds = partner[holds]
        out[layer, holds] = np.arange(experts)
    return out


def matched(gains: FloatArray) -> IntArray:
    """Give the columns [problems, n] that rows are matched with for the largest sum of gains [problems, n, n], n <= 8.

    Row by row, the best of each subset of columns (M. Held, R. M. Karp, 1962).
    """
    problems, size, _ = gains.shape
    best = np.full((problems, 2**size), -np.inf)
    best[:, 0] = 0.0
    last = np.zeros((problems, 2**size), np.int64)
    for row in range(size):
        for chosen in combinations(range(size), row + 1):
            mask = sum(1 << column for column in chosen)
            options = np.stack([best[:, mask ^ 1 << column] + gains[:, row, column] for column in chosen], axis=1)
            pick = options.argmax(axis=1)
            best[:, mask] = options[np.arange(problems), pick]
            last[:, mask] = np.array(chosen)[pick]
    columns = np.empty((problems, size), np.int64)
    left = np.full(problems, 2**size - 1)
    for row in range(size - 1, -1, -1):
        columns[:, row] = last[np.arange(problems), left]
        left ^= 1 << columns[:, row]
    return columns
