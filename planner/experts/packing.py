"""Replicas onto devices, heaviest first."""

from heapq import heapify, heappop, heappush, heapreplace

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray


def packed(weights: FloatArray, counts: IntArray, *, devices: int) -> IntArray:
    """Give the experts [layers, devices, slots of a device] of a first placement.

    The replicas, heaviest first, each go to the least loaded device that has a slot left and doesn't hold the expert
    (R. L. Graham, Bounds on multiprocessing timing anomalies, 1969, with as many slots on each device).
    weights, counts: [layers, experts]; the counts of a layer sum to a multiple of `devices`, none is above it.
    """
    each = weights / counts
    order = np.argsort(-each, axis=1, kind="stable")
    size = int(counts[0].sum()) // devices
    return np.array(
        [
            _packed_layer(experts.tolist(), loads.tolist(), replicas.tolist(), devices=devices, size=size)
            for experts, loads, replicas in zip(order, each, counts, strict=True)
        ]
    )


def packed_largest(weights: FloatArray, counts: IntArray, *, devices: int) -> FloatArray:
    """Give the largest device load [layers] of a first placement that may put an expert on a device twice.

    It is what balancers reach that don't mind it, and so what a placement is to be no worse than where that can be.
    """
    each = weights / counts
    size = int(counts[0].sum()) // devices
    loads = -np.sort(-np.repeat(each.ravel(), counts.ravel()).reshape(len(weights), -1), axis=1)
    return np.array([_largest(row.tolist(), devices=devices, size=size) for row in loads])


def _packed_layer(
    order: list[int], each: list[float], counts: list[int], *, devices: int, size: int
) -> list[list[int]]:
    """Give the experts of each device of one layer. order: of experts, the one of the heaviest replicas first."""
    held: list[list[int]] = [[] for _ in range(devices)]
    # Devices that have a slot left.
    heap = [(0.0, device) for device in range(devices)]
    for expert in order:
        # Those that have got it aren't asked again.
        got: list[tuple[float, int]] = []
        for _ in range(counts[expert]):
            if not heap:
                _make_room(held, got, each, expert, size=size)
                continue
            load, device = heappop(heap)
            held[device].append(expert)
            got.append((load + each[expert], device))
        for entry in got:
            if len(held[entry[1]]) < size:
                heappush(heap, entry)
    return held


def _make_room(held: list[list[int]], got: list[tuple[float, int]], each: list[float], now: int, *, size: int) -> None:
    """Put `now` onto a full device, and one that this holds onto a device with a slot left.

    Each device with a slot left holds `now` and is in `got`, so the full one holds more experts than it: one of them
    isn't there.
    """
    at = min(range(len(got)), key=lambda i: (len(held[got[i][1]]), got[i][1]))
    load, target = got[at]
    full = [device for device, experts in enumerate(held) if now not in experts and len(experts) == size]
    source = min(full, key=lambda device: sum(each[expert] for expert in held[device]))
    moved = next(expert for expert in held[source] if expert not in held[target])
    held[target].append(moved)
    got[at] = (load + each[moved], target)
    held[source].remove(moved)
    held[source].append(now)


def _largest(loads: list[float], *, devices: int, size: int) -> float:
    """Give the largest load of replicas [slots], the heaviest first, each onto the least loaded device with a slot."""
    heap = [(0.0, 0)] * devices
    heapify(heap)
    largest = 0.0
    for load in loads:
        least, used = heap[0]
        largest = max(largest, least + load)
        if used + 1 < size:
            heapreplace(heap, (least + load, used + 1))
        else:
            heappop(heap)
    return largest
