"""Which device gets which set of experts: names that change no load, but what travels and what has to be moved."""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.dispatch import held
from meshwright.planner.experts.placement import EMPTY
from meshwright.planner.experts.products import product
from meshwright.planner.experts.routing import Routing


def near_their_tokens(routing: Routing, by_device: IntArray, *, nodes: int) -> IntArray:
    """Give the sets to devices of the same node, layer by layer, so that the most tokens stay on their device.

    Tokens come from their home device, or from where the layer before computed them; replicas share alike. Given the
    layer before, names are an assignment problem.
    """
    out = by_device.copy()
    layers = len(out)
    for layer in range(layers):
        now = _split(out[layer], routing.experts)
        if routing.tokens is not None:
            stay = product(routing.tokens[layer], now.T)
        elif layer:
            before = _split(out[layer - 1], routing.experts)
            stay = product(product(before, routing.moves[layer - 1]), now.T)
        else:
            continue
        out[layer] = out[layer][_within_nodes(stay, nodes=nodes)]
    return out


def near_previous(by_device: IntArray, previous: IntArray, *, nodes: int, experts: int, alike: bool) -> IntArray:
    """Give the sets to the devices that hold most of them already, and experts to the slots that hold them.

    previous: [layers, devices, slots of a device]. alike: all layers get the same names, and devices of a node stay
    together, so that tokens travel as before; else each layer has its own, of all devices.
    """
    overlap = np.einsum(
        "lge,lhe->lgh", held(previous, experts).astype(np.float64), held(by_device, experts).astype(np.float64)
    )
    if not alike:
        out = np.stack([sets[_assigned(shared)] for sets, shared in zip(by_device, overlap, strict=True)])
    else:
        devices = by_device.shape[1]
        per_node = devices // nodes
        total = overlap.sum(axis=0)
        blocks = total.reshape(nodes, per_node, nodes, per_node)
        best = np.array([[_best(blocks[one, :, other]) for other in range(nodes)] for one in range(nodes)])
        chosen = _assigned(best)
        order = [
            other * per_node + device for one, other in enumerate(chosen) for device in _assigned(blocks[one, :, other])
        ]
        out = by_device[:, order]
    return _in_their_slots(out, previous)


def moved(by_device: IntArray, previous: IntArray, experts: int) -> int:
    """Give how many experts devices hold that they didn't hold before, of all layers."""
    return int((held(by_device, experts) & ~held(previous, experts)).sum())


def _split(sets: IntArray, experts: int) -> FloatArray:
    holds = held(sets[None], experts)[0].astype(np.float64)
    split: FloatArray = holds / holds.sum(axis=0)
    return split


def _within_nodes(stay: FloatArray, *, nodes: int) -> IntArray:
    per_node = len(stay) // nodes
    parts = [slice(node * per_node, (node + 1) * per_node) for node in range(nodes)]
    return np.concatenate([part.start + _assigned(stay[part, part]) for part in parts])


def _assigned(gains: FloatArray) -> IntArray:
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - slow to import, and balance does without

    columns: IntArray = linear_sum_assignment(gains, maximize=True)[1]
    return columns


def _best(gains: FloatArray) -> float:
    return float(gains[np.arange(len(gains)), _assigned(gains)].sum())


def _in_their_slots(by_device: IntArray, previous: IntArray) -> IntArray:
    """Put experts that stay on a device into the slot that they had, where both have as many slots."""
    if by_device.shape != previous.shape:
        return by_device
    same = by_device[..., :, None] == previous[..., None, :]
    kept = (same & (previous[..., None, :] != EMPTY)).any(axis=2)
    stays = (same & (by_device[..., :, None] != EMPTY)).any(axis=3)
    out = np.where(kept, previous, EMPTY)
    # The others fill the slots left, in their order.
    new = np.argsort(stays, axis=2, kind="stable")
    slot = np.argsort(kept, axis=2, kind="stable")
    others = np.take_along_axis(by_device, new, axis=2)
    free = ~np.take_along_axis(kept, slot, axis=2)
    current = np.take_along_axis(out, slot, axis=2)
    np.put_along_axis(out, slot, np.where(free, others, current), axis=2)
    return out
