"""Layers that are small enough to search fully, after the heuristics."""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.exact import Sets, searched
from meshwright.planner.experts.placement import EMPTY, EQUAL

# Layers up to this many slots are searched; partial placements looked at a layer, and for all layers.
MOST_SLOTS = 16
LAYER_LIMIT = 20_000
TOTAL_LIMIT = 100_000


def searched_layers(
    weights: FloatArray, placed: IntArray, largest: FloatArray, bound: FloatArray
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Give the placement, its largest loads and the bound after searching the small layers above their bound.

    weights: [layers, experts], heaviest first; placed: [layers, devices, slots of a device]; largest, bound: [layers].
    Where the search is complete, the bound is what it found. Where slots are better left empty, they hold EMPTY.
    """
    _, devices, size = placed.shape
    placed, largest, bound = placed.copy(), largest.copy(), bound.copy()
    left = TOTAL_LIMIT if devices * size <= MOST_SLOTS else 0
    for layer in np.flatnonzero(largest > bound * (1 + EQUAL)) if left else ():
        # Slots are left empty only for what is lighter than all that fills them.
        for filled in (True, False):
            end = searched(
                tuple(map(float, weights[layer])),
                devices=devices,
                size=size,
                known=float(largest[layer]),
                bound=float(bound[layer]),
                limit=min(left, LAYER_LIMIT),
                filled=filled,
            )
            left -= end.visited
            if end.sets is not None:
                placed[layer] = _held(end.sets, devices, size)
                largest[layer] = end.largest
        if end.complete:
            bound[layer] = largest[layer]
        if left <= 0:
            break
    return placed, largest, bound


def _held(sets: Sets, devices: int, size: int) -> IntArray:
    held = np.full((devices, size), EMPTY)
    for device in range(devices):
        experts = [expert for expert, chosen in enumerate(sets) if device in chosen]
        held[device, : len(experts)] = experts
    return held
