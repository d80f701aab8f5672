"""Other counts, for layers that exchanges leave well above their bound.

A slot goes from an expert whose replicas stay light without it to one of the most loaded device; of all such moves the
one whose placement is lightest is made, as long as it gains.
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.deadline import Deadline
from meshwright.planner.experts.packing import packed
from meshwright.planner.experts.polish import device_loads, polished

# A layer is worth it from so far above its bound; donors tried for each expert of the most loaded device; exchanges.
WORTH = 5e-3
DONORS = 4
ROUNDS = 24
TURNS = 6
# Replicas of a layer placed in all moves tried: what is done for a layer doesn't depend on the others.
MOST_WORK = 15_000


def recounted(
    weights: FloatArray, placed: IntArray, largest: FloatArray, enough: FloatArray, *, deadline: Deadline
) -> tuple[IntArray, FloatArray]:
    """Give the placement and its largest loads after moves of slots between experts.

    weights: [layers, experts]; placed: [layers, devices, slots of a device], all filled; largest, enough: [layers].
    """
    placed, largest = placed.copy(), largest.copy()
    slots = placed.shape[1] * placed.shape[2]
    if slots == weights.shape[1]:
        return placed, largest
    # The worst first, as long as there is time.
    for layer in np.argsort(enough / np.where(largest > 0, largest, 1.0), kind="stable"):
        left = MOST_WORK
        for _ in range(TURNS):
            if largest[layer] <= enough[layer] * (1 + WORTH) or deadline.passed():
                break
            counts = _moves(weights[layer], placed[layer])
            left -= slots * len(counts)
            if left < 0 or not len(counts):
                break
            again, reached = _best(
                weights[layer], counts, devices=placed.shape[1], enough=float(enough[layer]), deadline=deadline
            )
            if reached >= largest[layer] * (1 - 1e-9):
                break
            placed[layer], largest[layer] = again, reached
    return placed, largest


def _moves(weights: FloatArray, placed: IntArray) -> IntArray:
    """Give the counts [moves, experts] after each move of one slot."""
    counts = np.bincount(placed.ravel(), minlength=len(weights))
    each = weights / counts
    heaviest = placed[int(each[placed].sum(axis=1).argmax())]
    takers = [int(expert) for expert in heaviest if counts[expert] < len(placed)]
    lighter = np.where(counts > 1, weights / np.maximum(counts - 1, 1), np.inf)
    donors = [int(expert) for expert in np.argsort(lighter, kind="stable")[:DONORS] if counts[expert] > 1]
    pairs = [(taker, donor) for taker in takers for donor in donors if taker != donor]
    out = np.repeat(counts[None], len(pairs), axis=0)
    for row, (taker, donor) in enumerate(pairs):
        out[row, taker] += 1
        out[row, donor] -= 1
    return out


def _best(
    weights: FloatArray, counts: IntArray, *, devices: int, enough: float, deadline: Deadline
) -> tuple[IntArray, float]:
    """Give the lightest of the placements with each of the counts, and its largest load."""
    all_weights = np.repeat(weights[None], len(counts), axis=0)
    each = all_weights / counts
    placed = polished(
        packed(all_weights, counts, devices=devices),
        each,
        enough=np.full(len(counts), enough),
        rounds=ROUNDS,
        deadline=deadline,
    )
    reached = device_loads(placed, each).max(axis=1)
    best = int(reached.argmin())
    return placed[best], float(reached[best])
