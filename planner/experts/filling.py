"""Slots that a placement leaves empty, filled for engines that leave none, so that no device gets heavier.

An engine sends each of the c copies of an expert 1 / c of its tokens, also where two of them are on one device. An
expert that gets one more copy on each of its devices loads them as before; the simplest is one on a single device.
Where slots are left that no expert so fills, each gets the copy that makes the heaviest device lightest, of the experts
of its device, or, where that is heavier than it was, of its node; and each choice is looked at again while that
relieves the heaviest.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.counts import held_counts
from meshwright.planner.experts.placement import EMPTY, EQUAL

PASSES = 4


@dataclass(slots=True, kw_only=True)
class _Layer:
    """One layer. slots: experts [devices, slots of a device]; copies: how many each device has [devices, experts]."""

    weights: FloatArray
    slots: IntArray
    copies: IntArray

    @property
    def loads(self) -> FloatArray:
        counts = np.maximum(self.copies.sum(axis=0), 1)
        loads: FloatArray = (self.copies * (self.weights / counts)).sum(axis=1)
        return loads

    def put(self, device: int, slot: int, expert: int) -> None:
        held = int(self.slots[device, slot])
        if held != EMPTY:
            self.copies[device, held] -= 1
        self.slots[device, slot] = expert
        self.copies[device, expert] += 1


def filled_lightly(loads: FloatArray, placement: IntArray, *, devices: int, nodes: int = 1) -> IntArray:
    """Give the placement [layers, slots] with an expert in each slot.

    loads: [layers, experts].
    """
    out = placement.reshape(len(placement), devices, -1).copy()
    for layer in np.flatnonzero((placement == EMPTY).any(axis=1)):
        held = _Layer(weights=loads[layer], slots=out[layer], copies=held_counts(out[layer], loads.shape[1]))
        known = float(held.loads.max())
        _fill_alike(held)
        _fill_rest(held, np.argwhere(held.slots == EMPTY), known, per_node=devices // nodes)
    return out.reshape(placement.shape)


def _fill_alike(layer: _Layer) -> None:
    """Fill with one more copy of an expert on each of its devices, experts on the fewest first."""
    there = layer.copies > 0
    free = (layer.slots == EMPTY).sum(axis=1)
    for expert in np.argsort(there.sum(axis=0), kind="stable").tolist():
        on = np.flatnonzero(there[:, expert])
        for _ in range(int(free[on].min())):
            for device in on.tolist():
                layer.put(device, int((layer.slots[device] == EMPTY).argmax()), expert)
            free[on] -= 1


def _fill_rest(layer: _Layer, left: IntArray, known: float, *, per_node: int) -> None:
    """Fill the slots left [slots, 2], device and slot of it. known: the largest load before."""
    for widened in (False, True):
        for _ in range(PASSES):
            before = layer.slots.copy()
            for device, slot in left.tolist():
                node = slice(device // per_node * per_node, (device // per_node + 1) * per_node)
                near = np.flatnonzero(layer.copies[device]) if not widened else np.empty(0, np.int64)
                choices = near if len(near) else np.flatnonzero(layer.copies[node].any(axis=0))
                # An empty node has any.
                layer.put(device, slot, _lightest(layer, device, slot, choices if len(choices) else np.array([0])))
            if (layer.slots == before).all():
                break
        if float(layer.loads.max()) <= known * (1 + EQUAL):
            break


def _lightest(layer: _Layer, device: int, slot: int, choices: IntArray) -> int:
    """Give the one of the experts of which a copy in the slot makes the heaviest device lightest."""
    copies = layer.copies.astype(np.float64)
    held = int(layer.slots[device, slot])
    if held != EMPTY:
        copies[device, held] -= 1
    counts = copies.sum(axis=0)
    loads = (copies * (layer.weights / np.maximum(counts, 1))).sum(axis=1)
    share = layer.weights[choices] / (counts[choices] + 1)
    after = loads[:, None] + copies[:, choices] * (share - layer.weights[choices] / np.maximum(counts[choices], 1))
    after[device] += share
    # Of those that leave the heaviest alike, the one that evens out the others most.
    heaviest = after.max(axis=0)
    alike = heaviest <= heaviest.min() * (1 + EQUAL)
    return int(choices[np.where(alike, (after**2).sum(axis=0), np.inf).argmin()])
