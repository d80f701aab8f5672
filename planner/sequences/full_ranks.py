"""Splits that leave no rank without a sequence, for trainers that can't have that."""

import numpy as np

from meshwright.costmodels.layout import IntArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.split import Split, placed


def filled(costs: GroupCosts, batch: Batch, split: Split) -> Split | None:
    """Widen groups until each micro-batch has all ranks, the longest first; None where that can't be reached.

    Where no next degree is small enough for the ranks that are left, the longest group that can gives its shortest
    sequence to a group on some of them; one of another micro-batch where none of the same can.
    """
    degree, turn, group = split.degree.tolist(), split.micro_batch.tolist(), split.group.copy()
    seconds = split.seconds(costs, batch)
    longest_first = np.argsort(-seconds, kind="stable").tolist()
    for micro_batch in range(max(turn) + 1):
        mine = np.flatnonzero(split.micro_batch == micro_batch)
        order = mine[np.argsort(-seconds[mine], kind="stable")].tolist()
        idle = costs.ranks - int(costs.degrees[split.degree[mine]].sum())
        while idle:
            widened = next((each for each in order if 0 < _more(costs, degree[each]) <= idle), None)
            if widened is not None:
                idle -= _more(costs, degree[widened])
                degree[widened] += 1
                continue
            given = _given(costs, batch, group, [*order, *longest_first], idle)
            if given is None:
                return None
            item, own = given
            group[item] = len(degree)
            order.append(len(degree))
            degree.append(own)
            turn.append(micro_batch)
            idle -= int(costs.degrees[own])
    return placed(costs, np.array(degree), group, np.array(turn))


def _more(costs: GroupCosts, degree: int) -> int:
    """Give by how many ranks the next degree is larger, 0 where there is none."""
    if degree + 1 == len(costs.degrees):
        return 0
    return int(costs.degrees[degree + 1] - costs.degrees[degree])


def _given(costs: GroupCosts, batch: Batch, group: IntArray, order: list[int], idle: int) -> tuple[int, int] | None:
    """Give a sequence of one of the groups that keeps others, and the largest degree for it on idle ranks."""
    for each in order:
        items = np.flatnonzero(group == each)
        if len(items) < 2:
            continue
        item = int(items[batch.tokens[items].argmin()])
        fits = np.flatnonzero((costs.degrees <= idle) & (costs.most_tokens >= batch.tokens[item]))
        if len(fits):
            return item, int(fits[-1])
    return None
