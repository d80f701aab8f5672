"""From the group of each expert to the experts of each slot."""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.deadline import NEVER, Deadline
from meshwright.planner.experts.dispatch import held
from meshwright.planner.experts.homes import Pull, homes_of
from meshwright.planner.experts.placement import EMPTY
from meshwright.planner.experts.products import product
from meshwright.planner.experts.routing import Routing


def members_of(home: IntArray, *, nodes: int, most: int) -> IntArray:
    """Give the experts of each node [layers, nodes, most], EMPTY where it has fewer."""
    layers, experts = home.shape
    order = np.argsort(home, axis=1, kind="stable")
    node = np.take_along_axis(home, order, axis=1)
    first = (node[:, :, None] > np.arange(nodes)).sum(axis=1)
    # first[l, g]: experts in nodes after g; those before it are all others but its own.
    counts = (home[:, :, None] == np.arange(nodes)).sum(axis=1)
    begins = experts - first - counts
    rows = np.arange(layers)[:, None]
    members = np.full((layers, nodes, most), EMPTY)
    members[rows, node, np.arange(experts) - begins[rows, node]] = order
    return members


def by_group(tokens: FloatArray, groups: int) -> FloatArray:
    """Give tokens [layers, groups, experts] of those from devices [layers, devices, experts]."""
    layers, _, experts = tokens.shape
    grouped: FloatArray = tokens.reshape(layers, groups, -1, experts).sum(axis=2)
    return grouped


def slots_of(home: IntArray, *, devices: int, size: int) -> IntArray:
    """Give experts [layers, devices, size] of the device of each expert, EMPTY in the slots left."""
    members = members_of(home, nodes=devices, most=-(-home.shape[1] // devices))
    placed = np.full((len(home), devices, size), EMPTY)
    placed[:, :, : members.shape[2]] = members
    return placed


def devices_in_nodes(
    routing: Routing, home: IntArray, *, devices: int, nodes: int, deadline: Deadline = NEVER
) -> IntArray:
    """Give the device of each expert, on the node where it is at home, for the most tokens to stay on their device."""
    per_node = devices // nodes
    uncapped = np.full(routing.layers, np.inf)
    members = members_of(home, nodes=nodes, most=-(-routing.experts // nodes))
    out = np.empty_like(home)
    layer = np.arange(routing.layers)[:, None]
    for node in range(nodes):
        own = members[:, node]
        there = own != EMPTY
        known = np.maximum(own, 0)
        moves = routing.transitions if routing.tokens is None else None
        if moves is not None:
            moves = moves[layer[:-1, :, None], known[:-1, :, None], known[1:, None, :]]
            moves = moves * there[:-1, :, None] * there[1:, None, :]
        tokens = None
        if routing.tokens is not None:
            sent = routing.tokens[:, node * per_node : (node + 1) * per_node]
            tokens = np.take_along_axis(sent, known[:, None, :], axis=2) * there[:, None, :]
        pull = Pull(
            transitions=moves,
            tokens=tokens,
            loads=np.where(there, routing.loads[layer, known], 0.0),
            cap=uncapped,
            asked=uncapped,
            groups=per_node,
        )
        inside = homes_of(pull, deadline=deadline).home
        rows, places = np.nonzero(there)
        out[rows, own[rows, places]] = node * per_node + inside[rows, places]
    return out


def copied(routing: Routing, placed: IntArray) -> IntArray:
    """Give the placement with copies of experts in the slots left, each of the one that its device's tokens go to most.

    Layer by layer: where tokens come from is where the layer before computed them.
    """
    out = placed.copy()
    for layer in range(routing.layers):
        if routing.tokens is not None:
            wanted = routing.tokens[layer]
        elif layer:
            holds = held(out[layer - 1][None], routing.experts)[0].astype(np.float64)
            wanted = product(holds / holds.sum(axis=0), routing.moves[layer - 1])
        else:
            wanted = np.broadcast_to(routing.loads[0], (placed.shape[1], routing.experts))
        has = held(out[layer][None], routing.experts)[0]
        order = np.argsort(np.where(has, 1.0, -wanted), axis=1, kind="stable")
        for device, slots in enumerate(out[layer]):
            left = np.flatnonzero(slots == EMPTY)
            others = order[device, : routing.experts - has[device].sum()]
            slots[left[: len(others)]] = others[: len(left)]
    return out
