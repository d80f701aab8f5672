"""The best placements of tiny layers, by trying all."""

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations, product

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
    """The most tokens that stay in their group, over all named partitions of all layers with groups under the cap."""
    layers, experts = loads.shape
    homes = [np.array(home) for home in _even_homes(experts, groups)]
    allowed = [[home for home in homes if np.bincount(home, row, minlength=groups).max() <= cap] for row in loads]
    best = 0.0
    for path in product(*allowed):
        stay = sum(
            float(transitions[layer][path[layer][:, None] == path[layer + 1]].sum()) for layer in range(layers - 1)
        )
        best = max(best, stay)
    return best


def _even_homes(experts: int, groups: int) -> Iterator[tuple[int, ...]]:
    yield from sorted(set(permutations([expert % groups for expert in range(experts)])))
