"""Balance with replicas, layer by layer.

Expert e of weight w_e has c_e replicas of load w_e / c_e each. Decided are the counts c_e >= 1 and which devices hold
them; sum of c <= P, each of the G devices holds at most S = P / G different experts; minimised is the largest device
load. Slots are left empty only where layers are found better so; else c sums to P.

    1. counts      greedily, for the least heaviest replica (`greedy_counts`), then for room beside those above half of
                   a device's load (`roomy_counts`)
    2. bound       what no placement is below (`lower_bound`)
    3. placement   heaviest replicas first, to the least loaded device (`packed`), all layers at once
    4. exchanges   between pairs of devices, until within TOLERANCE of the bound, and no worse than heaviest first with
                   experts twice on a device would be (`polished`, `packed_largest`)
    5. kicks       layers that are still above it are disturbed in some ways and exchange again; the best is kept
    6. recounts    slots move between experts where that is well above it (`recounted`); with two slots a device counts
                   and bound are those of a linear program (`paired`), of which more slots have the bound
    7. annealing   pairs of devices of few slots share out their experts at random, ever less so (`annealed`)
    8. search      small layers are searched fully, or covered exactly (`searched_layers`)

Experts are taken in the order of their weights, so that their numbering changes nothing.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.annealing import annealed
from meshwright.planner.experts.count_program import company_bound
from meshwright.planner.experts.counts import greedy_counts, held_counts
from meshwright.planner.experts.deadline import NEVER, Deadline
from meshwright.planner.experts.lower_bound import lower_bound
from meshwright.planner.experts.packing import packed, packed_largest
from meshwright.planner.experts.placement import EMPTY
from meshwright.planner.experts.polish import device_loads, kicked, polished
from meshwright.planner.experts.recount import recounted
from meshwright.planner.experts.roomy import roomy_counts
from meshwright.planner.experts.small import searched_layers
from meshwright.planner.experts.two_slots import paired

TOLERANCE = 5e-4
ROUNDS = 150
# Devices of two slots are paired as well as can be without.
KICKS = 4
KICK_ROUNDS = 60
ANNEALING = 150
# Above their bound by so much layers may have a better one.
FAR = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class Balanced:
    """A balanced placement.

    placed: experts [layers, devices, slots of a device]. largest, bound: the largest device load and what it can't be
    below [layers], in the unit of the weights.
    """

    placed: IntArray
    largest: FloatArray
    bound: FloatArray


def balanced(
    weights: FloatArray,
    *,
    slots: int,
    devices: int,
    aim: FloatArray | None = None,
    kicks: int = KICKS,
    deadline: Deadline = NEVER,
    thorough: bool = True,
    sparing: bool = True,
) -> Balanced:
    """Give a placement of `weights` [layers, experts] on `devices` with `slots` in all.

    slots: a multiple of `devices`, at least the experts and at most experts x devices. aim: largest loads
    [layers] that are light enough, where the bounds are lower. kicks: how often layers above that are tried again.
    deadline: when to stop improving. thorough: whether recounts and searches follow the exchanges.
    sparing: whether slots may stay empty.
    """
    order = np.argsort(-weights, axis=1, kind="stable")
    heaviest_first = np.take_along_axis(weights, order, axis=1)
    counts = greedy_counts(heaviest_first, slots=slots, devices=devices)
    bound = lower_bound(heaviest_first, slots=slots, devices=devices, deadline=deadline)
    enough = np.maximum(bound, 0.0 if aim is None else aim) * (1 + TOLERANCE)
    usual = packed_largest(heaviest_first, counts, devices=devices)
    enough = np.maximum(np.minimum(enough, usual), bound)
    counts, placed = _first(heaviest_first, counts, enough, devices=devices, deadline=deadline)
    each = heaviest_first / counts
    largest = device_loads(placed, each).max(axis=1)
    if slots > 2 * devices:
        placed, largest = _kicked(placed, each, largest, enough, kicks=kicks, deadline=deadline)
    if thorough and slots == 2 * devices:
        placed, largest, bound = _paired(heaviest_first, placed, largest, bound, deadline=deadline)
    elif thorough:
        placed, largest = recounted(heaviest_first, placed, largest, enough, deadline=deadline)
        placed, largest = _annealed(heaviest_first, placed, largest, enough, deadline=deadline)
        if aim is None:
            bound = _bounded(heaviest_first, largest, bound, slots=slots, devices=devices, deadline=deadline)
    if thorough:
        placed, largest, bound = searched_layers(
            heaviest_first, placed, largest, bound, aim=aim, deadline=deadline, sparing=sparing
        )
    rows = np.arange(len(weights))[:, None, None]
    return Balanced(
        placed=np.where(placed == EMPTY, EMPTY, order[rows, placed]), largest=largest, bound=np.minimum(bound, largest)
    )


def _first(
    weights: FloatArray, greedy: IntArray, enough: FloatArray, *, devices: int, deadline: Deadline
) -> tuple[IntArray, IntArray]:
    """Give the counts and the placement after exchanges, of `greedy` counts where others are no lighter."""
    counts = roomy_counts(weights, greedy, enough, devices=devices)

    def placed_by(at: IntArray, tried: IntArray) -> tuple[IntArray, FloatArray]:
        each = weights[at] / tried
        placed = packed(weights[at], tried, devices=devices)
        placed = polished(placed, each, enough=enough[at], rounds=ROUNDS, deadline=deadline)
        return placed, device_loads(placed, each).max(axis=1)

    placed, largest = placed_by(np.arange(len(weights)), counts)
    left = np.flatnonzero((counts != greedy).any(axis=1) & (largest > enough))
    if len(left):
        usual, reached = placed_by(left, greedy[left])
        lighter = reached < largest[left]
        counts[left[lighter]], placed[left[lighter]] = greedy[left[lighter]], usual[lighter]
    return counts, placed


def _kicked(
    placed: IntArray, each: FloatArray, largest: FloatArray, enough: FloatArray, *, kicks: int, deadline: Deadline
) -> tuple[IntArray, FloatArray]:
    """Give placement and largest loads with the best of some disturbances of the layers above `enough`."""
    left = np.flatnonzero(largest > enough)
    if not len(left) or deadline.passed():
        return placed, largest
    placed, largest = placed.copy(), largest.copy()
    tries = np.concatenate([kicked(placed[left], kick) for kick in range(kicks)])
    which = np.tile(left, kicks)
    tries = polished(tries, each[which], enough=enough[which], rounds=KICK_ROUNDS, deadline=deadline)
    reached = device_loads(tries, each[which]).max(axis=1).reshape(kicks, -1)
    best = reached.argmin(axis=0)
    better = np.flatnonzero(reached.min(axis=0) < largest[left])
    placed[left[better]] = tries.reshape(kicks, len(left), *placed.shape[1:])[best[better], better]
    largest[left[better]] = reached.min(axis=0)[better]
    return placed, largest


def _annealed(
    weights: FloatArray, placed: IntArray, largest: FloatArray, enough: FloatArray, *, deadline: Deadline
) -> tuple[IntArray, FloatArray]:
    """Give placement and largest loads after annealing the layers above `enough`, and exchanges."""
    at = np.flatnonzero(largest > enough)
    if not len(at) or deadline.passed():
        return placed, largest
    placed, largest = placed.copy(), largest.copy()
    counts = held_counts(placed[at], weights.shape[1])
    each = weights[at] / counts
    again = annealed(placed[at], each, enough=enough[at], rounds=ANNEALING, deadline=deadline)
    again = polished(again, each, enough=enough[at], rounds=KICK_ROUNDS, deadline=deadline)
    placed[at], largest[at] = again, device_loads(again, each).max(axis=1)
    return placed, largest


def _bounded(
    weights: FloatArray, largest: FloatArray, bound: FloatArray, *, slots: int, devices: int, deadline: Deadline
) -> FloatArray:
    """Give the bound with that of the program of counts in layers far above it."""
    bound = bound.copy()
    for layer in np.flatnonzero(largest > bound * (1 + FAR)) if slots > weights.shape[1] else ():
        if deadline.passed():
            break
        low, high = float(bound[layer]), float(largest[layer])
        bound[layer] = company_bound(
            weights[layer], slots=slots, devices=devices, low=low, high=high, deadline=deadline
        )
    return bound


def _paired(
    weights: FloatArray, placed: IntArray, largest: FloatArray, bound: FloatArray, *, deadline: Deadline
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Give placement, largest loads and bound with the counts of `paired` in the layers above their bound."""
    placed, largest, bound = placed.copy(), largest.copy(), bound.copy()
    devices = placed.shape[1]
    for layer in np.flatnonzero(largest > bound * (1 + TOLERANCE)):
        if deadline.passed():
            break
        (counts,) = held_counts(placed[layer][None], weights.shape[1])
        found = paired(weights[layer], counts, devices=devices, bound=float(bound[layer]), deadline=deadline)
        row, each = weights[layer][None], (weights[layer] / found.counts)[None]
        again = packed(row, found.counts[None], devices=devices)
        again = polished(again, each, enough=np.array([found.bound]), rounds=ROUNDS, deadline=deadline)
        reached = float(device_loads(again, each).max())
        if reached < largest[layer]:
            placed[layer], largest[layer] = again[0], reached
        bound[layer] = min(found.bound, largest[layer])
    return placed, largest, bound
