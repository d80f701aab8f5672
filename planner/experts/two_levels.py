"""First nodes, then the devices of each node.

Each expert and all of its replicas are in one node, so that what a node is sent doesn't depend on the dispatch. Within
the nodes, all nodes of all layers at once, experts are balanced with replicas as on devices of their own.
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.balance import TOLERANCE, Balanced, balanced
from meshwright.planner.experts.deadline import NEVER, Deadline
from meshwright.planner.experts.placement import EMPTY
from meshwright.planner.experts.slots import members_of

# Slots up to which fewer of them are tried, and more of them in layers so far above their bound.
MOST_FEWER = 64
MOST_FEWER_FAR, FAR = 512, 3e-3


def balanced_slots(
    weights: FloatArray,
    *,
    slots: int,
    devices: int,
    aim: FloatArray | None = None,
    deadline: Deadline = NEVER,
    thorough: bool = True,
    sparing: bool = True,
) -> Balanced:
    """Give a balanced placement, with empty slots on devices that have more of them than there are experts.

    Layers leave a slot of each device empty where that is lighter than what was found for all of them; not so
    without `sparing`. Arguments as of `balanced`, but that `slots` may be any multiple of `devices` from the experts
    on.
    """
    size = slots // devices
    used = min(size, weights.shape[1])
    found = balanced(
        weights,
        slots=used * devices,
        devices=devices,
        aim=aim,
        deadline=deadline,
        thorough=thorough,
        sparing=sparing,
    )
    placed = np.full((len(weights), devices, size), EMPTY)
    placed[:, :, :used] = found.placed
    largest = found.largest.copy()
    enough = found.bound if aim is None else np.maximum(found.bound, aim)
    fewer = (used - 1) * devices
    above = np.flatnonzero(largest > enough * (1 + (TOLERANCE if fewer <= MOST_FEWER else FAR)))
    if thorough and sparing and len(above) and weights.shape[1] <= fewer <= MOST_FEWER_FAR and not deadline.passed():
        less = balanced_slots(
            weights[above],
            slots=fewer,
            devices=devices,
            aim=None if aim is None else aim[above],
            deadline=deadline,
        )
        lighter = less.largest < largest[above] * (1 - TOLERANCE)
        at = above[lighter]
        placed[at] = EMPTY
        placed[at, :, : used - 1] = less.placed[lighter]
        largest[at] = less.largest[lighter]
    return Balanced(placed=placed, largest=largest, bound=found.bound)


def balanced_in_nodes(
    loads: FloatArray, home: IntArray, *, slots: int, devices: int, nodes: int, deadline: Deadline = NEVER
) -> IntArray:
    """Give experts [layers, devices, slots of a device] with each expert on devices of its node.

    loads: [layers, experts]; home: node of each expert, in none of them more than experts / nodes rounded up.
    """
    layers, experts = loads.shape
    most = -(-experts // nodes)
    members = members_of(home, nodes=nodes, most=most)
    rows = np.arange(layers)[:, None, None]
    # A place without expert is one without load, whose slot stays empty.
    weights = np.where(members == EMPTY, 0.0, loads[rows, members]).reshape(layers * nodes, most)
    aim = np.repeat(loads.sum(axis=1) / devices, nodes)
    inside = balanced_slots(weights, slots=slots // nodes, devices=devices // nodes, aim=aim, deadline=deadline).placed
    which = members.reshape(layers * nodes, 1, most)
    named = np.take_along_axis(np.broadcast_to(which, (*inside.shape[:2], most)), np.maximum(inside, 0), axis=2)
    return np.where(inside == EMPTY, EMPTY, named).reshape(layers, devices, -1)
