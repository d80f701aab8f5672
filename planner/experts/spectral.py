"""Where sweeps start: groups of the first layer's experts that later layers keep together.

Transitions M of row sums r and column sums q deviate from those of unrelated layers by

    A = (M - r q' / sum M) / sqrt(r q')                         (correspondence analysis, M. Greenacre, 1984)

Orthonormal U_l [experts, K - 1] with a large sum of trace(U_l' A_l U_l+1) over the first layers, found by one pass
back, one forth and one back of orthogonal iteration, place experts that share tokens near each other; the first
layer's are grouped around K of them that are far apart.
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.assignment import assigned
from meshwright.planner.experts.deadline import NEVER, Deadline
from meshwright.planner.experts.products import product

SEED = 6
ROUNDS = 5
# What is further along has next to nothing left of the first layer.
NEAR = 12
TINY = 1e-9


def first_homes(
    transitions: FloatArray, loads: FloatArray, *, groups: int, size: int, deadline: Deadline = NEVER
) -> IntArray:
    """Give the group of each expert of the first layer [experts], in turn where the time is over.

    transitions: [layers - 1, experts, experts]; loads: of the first layer [experts]; size: the most experts of a group.
    """
    from scipy.linalg import qr  # noqa: PLC0415 - slow to import, and most placements do without

    home = np.arange(len(loads)) % groups
    if deadline.passed():
        return home
    basis = _basis(_deviations(transitions[:NEAR]), groups - 1)
    weight = np.maximum(loads / loads.sum(), TINY)
    spread = np.concatenate([basis, np.sqrt(weight)[:, None]], axis=1)
    points = spread / np.sqrt(weight)[:, None]
    centres = points[qr(spread.T, pivoting=True, mode="economic")[2][:groups]]
    for _ in range(ROUNDS):
        if deadline.passed():
            break
        far = ((points[:, None] - centres) ** 2).sum(axis=2)
        home = assigned(-far * weight[:, None], size=size)
        inside = weight[:, None] * (home[:, None] == np.arange(groups))
        centres = inside.T @ points / np.maximum(inside.sum(axis=0), TINY)[:, None]
    return home


def _deviations(transitions: FloatArray) -> FloatArray:
    rows, columns = transitions.sum(axis=2)[:, :, None], transitions.sum(axis=1)[:, None, :]
    total = np.maximum(transitions.sum(axis=(1, 2)), TINY)[:, None, None]
    deviations: FloatArray = (transitions - rows * columns / total) / np.sqrt(np.maximum(rows * columns, TINY))
    return deviations


def _basis(deviations: FloatArray, width: int) -> FloatArray:
    """Give the vectors of the first layer [experts, width]."""
    layers, experts = len(deviations) + 1, deviations.shape[1]
    start = np.random.default_rng(SEED).normal(size=(experts, min(width, experts)))
    after = [np.linalg.qr(start)[0]]
    for step in deviations[::-1]:
        after.append(np.linalg.qr(product(step, after[-1]))[0])
    along = [after[-1]]
    for step in deviations:
        along.append(np.linalg.qr(product(step.T, along[-1]))[0])
    vectors = along[-1]
    for layer in range(layers - 2, -1, -1):
        before = product(deviations[layer - 1].T, along[layer - 1]) if layer else 0.0
        vectors = np.linalg.qr(product(deviations[layer], vectors) + before)[0]
    return vectors
