"""The placement that is there, made good again by few exchanges.

Loads drift between two placements. Where experts are is kept, with their counts of replicas: round by round the most
loaded device of a layer exchanges one expert against one of the device that leaves the two the least loaded, until the
layer is light enough or none gains. Two experts move an exchange, where a placement made anew moves most of them. What
is then still too heavy has pairs of devices share out all of their experts.
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.counts import held_counts
from meshwright.planner.experts.deadline import NEVER, Deadline
from meshwright.planner.experts.placement import EMPTY
from meshwright.planner.experts.polish import device_loads, polished
from meshwright.planner.experts.resplit import relieve

ROUNDS = 100


def repaired(
    weights: FloatArray, previous: IntArray, *, enough: FloatArray, deadline: Deadline = NEVER
) -> tuple[IntArray, FloatArray]:
    """Give `previous` after exchanges, and its largest device loads [layers], infinite where experts are missing.

    weights: [layers, experts]; previous: experts [layers, devices, slots of a device], EMPTY where there is none;
    enough: largest loads [layers] that are light enough.
    """
    counts = held_counts(previous, weights.shape[1])
    whole = (previous != EMPTY).all(axis=(1, 2)) & (counts > 0).all(axis=1)
    out, largest = previous.copy(), np.full(len(previous), np.inf)
    each = weights / np.maximum(counts, 1)
    open_ = np.flatnonzero(whole)
    largest[open_] = device_loads(out[open_], each[open_]).max(axis=1)
    for _ in range(ROUNDS if previous.shape[1] > 1 else 0):
        open_ = open_[largest[open_] > enough[open_]]
        if not len(open_) or deadline.passed():
            break
        again = relieve(out[open_], each[open_], device_loads(out[open_], each[open_]), sparing=True)
        changed = (again != out[open_]).any(axis=(1, 2))
        out[open_] = again
        open_ = open_[changed]
        largest[open_] = device_loads(out[open_], each[open_]).max(axis=1)
    left = np.flatnonzero(np.isfinite(largest) & (largest > enough))
    if len(left) and not deadline.passed():
        out[left] = polished(out[left], each[left], enough=enough[left], rounds=ROUNDS, deadline=deadline)
        largest[left] = device_loads(out[left], each[left]).max(axis=1)
    return out, largest
