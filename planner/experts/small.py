"""Layers that are small enough to search fully, or to solve by constraint programming, after the heuristics.

What is done for a layer doesn't depend on the others.
"""

from functools import partial

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.constraint_program import solved
from meshwright.planner.experts.deadline import Deadline
from meshwright.planner.experts.exact import Sets, searched
from meshwright.planner.experts.placement import EMPTY, EQUAL

# Layers up to this many slots are searched; partial placements looked at.
MOST_SLOTS = 16
LAYER_LIMIT = 10_000
# Layers up to this many experts are solved by constraint programming, from so far above their bound.
MOST_EXPERTS = 24
WORTH = 5e-4


def searched_layers(
    weights: FloatArray, placed: IntArray, largest: FloatArray, bound: FloatArray, *, deadline: Deadline
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Give the placement, its largest loads and the bound after searching the small layers above their bound.

    weights: [layers, experts], heaviest first; placed: [layers, devices, slots of a device]; largest, bound: [layers].
    Where the search is complete, the bound is what it found. Where slots are better left empty, they hold EMPTY.
    """
    placed, largest, bound = placed.copy(), largest.copy(), bound.copy()
    if placed[0].size <= MOST_SLOTS:
        for layer in np.flatnonzero(largest > bound * (1 + EQUAL)):
            if deadline.passed():
                break
            _search(weights, placed, largest, bound, int(layer))
    if weights.shape[1] <= MOST_EXPERTS:
        for layer in np.flatnonzero(largest > bound * (1 + WORTH)):
            if deadline.passed():
                break
            _solve(weights, placed, largest, bound, int(layer), deadline=deadline)
    return placed, largest, bound


def _search(weights: FloatArray, placed: IntArray, largest: FloatArray, bound: FloatArray, layer: int) -> None:
    """Search a layer, and write what is found into its placement, load and bound."""
    _, devices, size = placed.shape
    # Slots are left empty only for what is lighter than all that fills them.
    for filled in (True, False):
        end = searched(
            tuple(map(float, weights[layer])),
            devices=devices,
            size=size,
            known=float(largest[layer]),
            bound=float(bound[layer]),
            limit=LAYER_LIMIT,
            filled=filled,
        )
        if end.sets is not None:
            placed[layer] = _held(end.sets, devices, size)
            largest[layer] = end.largest
    if end.complete:
        bound[layer] = largest[layer]


def _solve(
    weights: FloatArray, placed: IntArray, largest: FloatArray, bound: FloatArray, layer: int, *, deadline: Deadline
) -> None:
    """Solve a layer, and write what is found into its placement, load and bound."""
    _, devices, size = placed.shape
    known = tuple(
        tuple(map(int, np.flatnonzero((placed[layer] == expert).any(axis=1)))) for expert in range(weights.shape[1])
    )
    solve = partial(
        solved,
        tuple(map(float, weights[layer])),
        devices=devices,
        size=size,
        known=known,
        bound=float(bound[layer]),
        left_s=deadline.left_s,
    )
    end = solve(filled=False)
    if end.sets is not None:
        # Slots are left empty only for what is lighter than all that fills them.
        full = end if sum(map(len, end.sets)) == devices * size else solve(filled=True)
        chosen = full if full.sets is not None and full.largest <= end.largest * (1 + EQUAL) else end
        placed[layer], largest[layer] = _held(chosen.sets or end.sets, devices, size), chosen.largest
    bound[layer] = min(end.bound, largest[layer])
    deadline.passed()


def _held(sets: Sets, devices: int, size: int) -> IntArray:
    held = np.full((devices, size), EMPTY)
    for device in range(devices):
        experts = [expert for expert, chosen in enumerate(sets) if device in chosen]
        held[device, : len(experts)] = experts
    return held
