"""Layers that are small enough to search fully or to cover exactly, after the heuristics.

What is done for a layer doesn't depend on the others.
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.cover import coverable
from meshwright.planner.experts.deadline import Deadline
from meshwright.planner.experts.exact import Sets, searched
from meshwright.planner.experts.lightest import lightest
from meshwright.planner.experts.placement import EMPTY, EQUAL

# Layers up to this many slots are searched; partial placements looked at.
MOST_SLOTS = 16
LAYER_LIMIT = 10_000
# From so far above their bound layers are covered; without replicas those of few experts from any. With replicas few
# experts have too many counts already.
WORTH = 5e-4
PROVEN_EXPERTS = 24
MOST_REPLICATED = 32


def searched_layers(
    weights: FloatArray,
    placed: IntArray,
    largest: FloatArray,
    bound: FloatArray,
    *,
    aim: FloatArray | None = None,
    deadline: Deadline,
    sparing: bool = True,
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Give the placement, its largest loads and the bound after searching the small layers above their bound.

    weights: [layers, experts], heaviest first; placed: [layers, devices, slots of a device]; largest, bound: [layers].
    aim: largest loads [layers] that are light enough to be covered no better.
    sparing: whether slots may stay empty.
    Where the search is complete, the bound is what it found. Where slots are better left empty, they hold EMPTY.
    """
    placed, largest, bound = placed.copy(), largest.copy(), bound.copy()
    if placed[0].size <= MOST_SLOTS:
        for layer in np.flatnonzero(largest > bound * (1 + EQUAL)):
            if deadline.passed():
                break
            _search(weights, placed, largest, bound, int(layer), sparing=sparing)
    _, devices, size = placed.shape
    experts = weights.shape[1]
    single = devices * size == experts
    # With replicas two slots a device have had a program of their own. Parts of layers are many.
    few = experts <= (PROVEN_EXPERTS if aim is not None else MOST_REPLICATED) and size > 2
    if coverable(experts, devices=devices, size=size) and (few or (single and aim is None)):
        worth = EQUAL if single and experts <= PROVEN_EXPERTS else WORTH
        enough = bound * (1 + worth) if aim is None else np.maximum(bound * (1 + worth), aim * (1 + WORTH))
        for layer in np.flatnonzero(largest > enough):
            if deadline.passed():
                break
            _cover(weights, placed, largest, bound, int(layer), deadline=deadline)
    return placed, largest, bound


def _search(
    weights: FloatArray, placed: IntArray, largest: FloatArray, bound: FloatArray, layer: int, *, sparing: bool
) -> None:
    """Search a layer, and write what is found into its placement, load and bound."""
    _, devices, size = placed.shape
    # Slots are left empty only for what is lighter than all that fills them.
    for filled in (True, False) if sparing else (True,):
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
    if end.complete and sparing:
        bound[layer] = largest[layer]


def _cover(
    weights: FloatArray, placed: IntArray, largest: FloatArray, bound: FloatArray, layer: int, *, deadline: Deadline
) -> None:
    """Look for exact covers of a layer, and write what is found into its placement, load and bound."""
    _, devices, size = placed.shape
    counts = np.bincount(placed[layer][placed[layer] != EMPTY], minlength=weights.shape[1])
    end = lightest(
        weights[layer],
        counts,
        devices=devices,
        size=size,
        known=float(largest[layer]),
        bound=float(bound[layer]),
        deadline=deadline,
    )
    if end.held is not None:
        placed[layer] = _held(tuple(tuple(np.flatnonzero(there).tolist()) for there in end.held.T), devices, size)
    largest[layer], bound[layer] = end.largest, min(end.bound, end.largest)


def _held(sets: Sets, devices: int, size: int) -> IntArray:
    held = np.full((devices, size), EMPTY)
    for device in range(devices):
        experts = [expert for expert, chosen in enumerate(sets) if device in chosen]
        held[device, : len(experts)] = experts
    return held
