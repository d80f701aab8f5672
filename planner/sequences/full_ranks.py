"""Splits that leave no rank without a sequence, for trainers that can't have that."""

import numpy as np

from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.split import Split, placed


def filled(costs: GroupCosts, batch: Batch, split: Split) -> Split | None:
    """Widen groups until each micro-batch has all ranks: the longest first; None where that can't be reached."""
    degree = split.degree.copy()
    seconds = split.seconds(costs, batch)
    for turn in range(int(split.micro_batch.max()) + 1):
        mine = np.flatnonzero(split.micro_batch == turn)
        order = mine[np.argsort(-seconds[mine], kind="stable")].tolist()
        idle = costs.ranks - int(costs.degrees[degree[mine]].sum())
        while idle:
            widened = next((group for group in order if 0 < _more(costs, int(degree[group])) <= idle), None)
            if widened is None:
                return None
            idle -= _more(costs, int(degree[widened]))
            degree[widened] += 1
    return placed(costs, degree, split.group, split.micro_batch)


def _more(costs: GroupCosts, degree: int) -> int:
    """Give by how many ranks the next degree is larger, 0 where there is none."""
    if degree + 1 == len(costs.degrees):
        return 0
    return int(costs.degrees[degree + 1] - costs.degrees[degree])
