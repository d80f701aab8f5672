"""Pairs of devices share out their experts at random, ever less so.

Exchanges that only ever make a pair more even end where no pair can be, well above what three or more devices could
reach together. Here each split of a pair's experts is chosen with a probability of exp(-(L1 - L2)^2 / t^2), where t,
relative to the mean load, falls geometrically (S. Kirkpatrick, C. D. Gelatt, M. P. Vecchi, Optimization by simulated
annealing, 1983). All devices are in a pair each round, the same pairs and the same chances in all layers.
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.deadline import NEVER, Deadline
from meshwright.planner.experts.polish import device_loads
from meshwright.planner.experts.resplit import MOST_SPLIT, shaken, tries

SEED = 30
HOT, COLD = 5e-3, 5e-4
# Before that share of the rounds nothing worth keeping is found.
LATE = 0.6


def annealed(
    placed: IntArray, each: FloatArray, *, enough: FloatArray, rounds: int, deadline: Deadline = NEVER
) -> IntArray:
    """Give a placement whose largest loads aren't above those of `placed`, of devices of few slots.

    placed: experts [layers, devices, slots of a device]; each: load of one replica [layers, experts]; enough: largest
    loads [layers] at which a layer is left as it is.
    """
    _, devices, size = placed.shape
    half = devices // 2
    if not half or size > MOST_SPLIT:
        return placed
    draw = np.random.default_rng(SEED)
    best, now = placed.copy(), placed.copy()
    largest = device_loads(placed, each).max(axis=1)
    mean = device_loads(placed, each).mean(axis=1)
    open_ = np.arange(len(placed))
    for turn in range(rounds):
        if deadline.passed():
            break
        warmth = HOT * (COLD / HOT) ** (turn / rounds) * mean[open_]
        pairs = draw.permutation(devices)
        first, second = (np.broadcast_to(part, (len(open_), half)) for part in (pairs[:half], pairs[half : 2 * half]))
        chance = -draw.gumbel(size=(half, tries(size)))
        now[open_] = shaken(now[open_], each[open_], first, second, warmth=warmth, chance=chance)
        if turn < rounds * LATE:
            continue
        reached = device_loads(now[open_], each[open_]).max(axis=1)
        better = open_[reached < largest[open_]]
        best[better] = now[better]
        largest[open_] = np.minimum(largest[open_], reached)
        open_ = open_[largest[open_] > enough[open_]]
        if not len(open_):
            break
    return best
