"""Which micro-batch each group is in, where ranks wait after each."""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.packing import Groups
from meshwright.planner.sequences.split import Split, placed


def shelved(costs: GroupCosts, batch: Batch, groups: Groups, micro_batches: int) -> Split:
    """Put groups that `micro_batches` have room for into those: of a degree the longest ones together."""
    if micro_batches == 1:
        return placed(costs, groups.degree, groups.group, groups.micro_batch)
    group_s = costs.sums_s(groups.degree, groups.group, batch.work_s, batch.tokens)
    turn = _turns(costs, groups.degree, group_s)
    return placed(costs, groups.degree, groups.group, turn)


def _turns(costs: GroupCosts, degree: IntArray, group_s: FloatArray) -> IntArray:
    """Fill micro-batches one after another, each with the largest degrees first, the longest groups of each."""
    turn = np.empty(len(degree), dtype=np.int64)
    free: list[int] = []
    for group in np.lexsort((-group_s, -degree)).tolist():
        size = int(costs.degrees[degree[group]])
        number = next((at for at, room in enumerate(free) if room >= size), len(free))
        if number == len(free):
            free.append(costs.ranks)
        free[number] -= size
        turn[group] = number
    return turn
