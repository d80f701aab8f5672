"""The best placements of tiny layers, by trying all."""

from collections.abc import Iterator, Sequence
from itertools import combinations, product

import numpy as np

from meshwright.costmodels.layout import FloatArray


def least_largest(weights: Sequence[float], *, devices: int, size: int) -> float:
    """The least largest device load, experts on any sets of devices of `size` slots, which may stay empty."""
    sets = [chosen for count in range(1, devices + 1) for chosen in combinations(range(devices), count)]
    best = float("inf")
    stack: list[tuple[int, tuple[float, ...], tuple[int, ...]]] = [(0, (0.0,) * devices, (size,) * devices)]
    while stack:
        expert, loads, free = stack.pop()
        if max(loads) >= best:
            continue
        if expert == len(weights):
            best = max(loads)
            continue
        for chosen in sets:
            if all(free[device] for device in chosen):
                part = weights[expert] / len(chosen)
                after = tuple(load + part * (device in chosen) for device, load in enumerate(loads))
                stack.append((expert + 1, after, tuple(left - (at in chosen) for at, left in enumerate(free))))
    return best


def most_staying(transitions: FloatArray, loads: FloatArray, *, groups: int, cap: float = float("inf")) -> float:
    """The most tokens that stay in their group, over all named partitions of all layers with groups under the cap.

    A layer that has none under the cap has those with the lightest heaviest group.
    """
    layers, experts = loads.shape
    homes = [np.array(home) for home in _homes(experts, groups)]
    allowed = []
    for row in loads:
        heaviest = np.array([np.bincount(home, row, minlength=groups).max() for home in homes])
        most = max(cap, heaviest.min()) * (1 + 1e-9)
        allowed.append([home for home, load in zip(homes, heaviest, strict=True) if load <= most])
    best = 0.0
    for path in product(*allowed):
        stay = sum(
            float(transitions[layer][path[layer][:, None] == path[layer + 1]].sum()) for layer in range(layers - 1)
        )
        best = max(best, stay)
    return best


def least_of_homes(loads: FloatArray, *, groups: int) -> float:
    """The lightest heaviest group of one layer's experts, each in one group."""
    homes = _homes(len(loads), groups)
    return min(float(np.bincount(np.array(home), loads, minlength=groups).max()) for home in homes)


def _homes(experts: int, groups: int) -> Iterator[tuple[int, ...]]:
    """All homes of which no group has more experts than the fewest that it must have room for."""
    size = -(-experts // groups)
    for home in product(range(groups), repeat=experts):
        if max(map(home.count, range(groups))) <= size:
            yield home
