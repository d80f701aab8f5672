"""Karmarkar-Karp: loads over equal groups by largest differencing, for groups of one size and no barrier between them.

Each load starts as a partition of its own, with one group that isn't empty. The two partitions whose fullest and
emptiest groups differ the most become one, the fullest group of either with the emptiest of the other, until one is
left (Karmarkar and Karp 1982, UCB/CSD 82/113; several groups: Michiels et al. 2003). verl balances ranks so.
"""

from heapq import heapify, heappop, heapreplace

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.split import Split, placed

# Loads times groups of more of which it takes too long.
MOST_CELLS = 2**21


def differenced(loads_s: FloatArray, groups: int) -> IntArray:
    """Give the group of each load [loads]: sums differ by little."""
    count = len(loads_s)
    sums = [np.append(load_s, np.zeros(groups - 1)) for load_s in loads_s.tolist()]
    heap = [(-load_s, number) for number, load_s in enumerate(loads_s.tolist())]
    heapify(heap)
    made: list[tuple[int, int, IntArray]] = []
    while len(heap) > 1:
        _, one = heappop(heap)
        _, other = heap[0]
        joined = sums[one] + sums[other][::-1]
        order = np.argsort(-joined, kind="stable")
        made.append((one, other, order))
        sums.append(joined[order])
        heapreplace(heap, (float(sums[-1][-1] - sums[-1][0]), len(sums) - 1))
    # From the last partition back: where each group of a part has come to be.
    place = {heap[0][1]: np.arange(groups)}
    found = np.zeros(count, dtype=np.int64)
    for number in range(len(made) - 1, -1, -1):
        one, other, order = made[number]
        back = np.empty(groups, dtype=np.int64)
        back[order] = np.arange(groups)
        mine = place.pop(count + number)[back]
        place[one], place[other] = mine, mine[::-1]
    for number, own in place.items():
        found[number] = own[0]
    return found


def differenced_split(costs: GroupCosts, batch: Batch, micro_batches: int) -> Split | None:
    """Give the split into groups of the only degree, None where memory doesn't hold what differencing puts together."""
    width = costs.ranks // int(costs.degrees[0])
    group = np.unique(differenced(batch.load_s[0], micro_batches * width), return_inverse=True)[1]
    tokens, seconds = np.bincount(group, batch.tokens), np.bincount(group, batch.load_s[0])
    if tokens.max() > costs.most_tokens[0]:
        return None
    turn = np.empty(len(seconds), dtype=np.int64)
    turn[np.argsort(-seconds, kind="stable")] = np.arange(len(seconds)) // width
    return placed(costs, np.zeros(len(seconds), dtype=np.int64), group, turn)
