"""The algorithm of DeepSeek's Expert Parallelism Load Balancer, as its README and published outputs describe it.

Replicas one by one to the expert whose replicas are heaviest; replicas, heaviest first, to the least loaded device with
a slot left. Hierarchical: groups of experts to nodes likewise, replicas within a node, then devices within a node.
"""

import heapq

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray


def eplb_global(weights: FloatArray, *, slots: int, devices: int) -> IntArray:
    """Experts [layers, devices, slots of a device]; weights: [layers, experts]."""
    return np.stack([_layer(row, slots, devices) for row in weights])


def eplb_hierarchical(weights: FloatArray, *, slots: int, devices: int, nodes: int, groups: int) -> IntArray:
    """The same with each of `groups` groups of successive experts on one node."""
    layers, experts = weights.shape
    size = experts // groups
    out = np.empty((layers, devices, slots // devices), np.int64)
    per_node = devices // nodes
    for layer, row in enumerate(weights):
        node_groups = _packed(row.reshape(groups, size).sum(axis=1), nodes)
        for node, chosen in enumerate(node_groups):
            own = np.concatenate([np.arange(group * size, (group + 1) * size) for group in chosen])
            local = _layer(row[own], slots // nodes, per_node)
            out[layer, node * per_node : (node + 1) * per_node] = own[local]
    return out


def _layer(weights: FloatArray, slots: int, devices: int) -> IntArray:
    counts = np.ones(len(weights), np.int64)
    for _ in range(slots - len(weights)):
        counts[(weights / counts).argmax()] += 1
    expert = np.repeat(np.arange(len(weights)), counts)
    return np.array([[expert[item] for item in items] for items in _packed((weights / counts)[expert], devices)])


def _packed(weights: FloatArray, packs: int) -> list[list[int]]:
    """Items of each pack, as many in each: heaviest first into the lightest pack with room."""
    room = len(weights) // packs
    held: list[list[int]] = [[] for _ in range(packs)]
    heap = [(0.0, pack) for pack in range(packs)]
    for item in np.argsort(-weights, kind="stable"):
        load, pack = heapq.heappop(heap)
        held[pack].append(int(item))
        if len(held[pack]) < room:
            heapq.heappush(heap, (load + float(weights[item]), pack))
    return held


def largest_loads(weights: FloatArray, by_device: IntArray) -> FloatArray:
    """The largest device load [layers] where replicas share alike."""
    out = []
    for row, devices in zip(weights, by_device, strict=True):
        counts = np.bincount(devices.ravel(), minlength=len(row))
        out.append((row / np.maximum(counts, 1))[devices].sum(axis=1).max())
    return np.array(out)
