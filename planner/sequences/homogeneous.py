"""Splits into groups of one size, as trainers make them without a planner: the baseline, and where a search starts.

The sequences go, from the longest on, to the group with the fewest seconds that has room for its tokens (LPT).
"""

from heapq import heappop, heappush

import numpy as np

from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.free_running import blocks_split, dealt
from meshwright.planner.sequences.full_ranks import filled
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.mode import Mode
from meshwright.planner.sequences.quick_bound import quick_bound_s
from meshwright.planner.sequences.split import Split, placed, step_s


def best_homogeneous(costs: GroupCosts, batch: Batch, mode: Mode, *, full: bool = False) -> tuple[float, Split] | None:
    """Give the fastest split into groups of one size, and its seconds.

    full: each rank needs a sequence in each micro-batch; groups are widened where there are too few, and None is given
    where that doesn't suffice for any size.
    """
    least_s = [
        quick_bound_s(costs, batch, degrees=np.arange(len(costs.degrees)) == degree)
        for degree in range(len(costs.degrees))
    ]
    best: tuple[float, Split] | None = None
    for degree in np.argsort(least_s, kind="stable").tolist():
        if best is not None and least_s[degree] >= best[0]:
            break
        if not np.isfinite(least_s[degree]):
            continue
        split: Split | None = homogeneous_split(costs, batch, degree, Mode.LOCKSTEP if full else mode)
        split = filled(costs, batch, split) if full and split is not None else split
        if split is None:
            continue
        seconds = step_s(costs, batch, split, mode)
        if best is None or seconds < best[0]:
            best = (seconds, split)
    return best


def homogeneous_split(costs: GroupCosts, batch: Batch, degree: int, mode: Mode) -> Split:
    """Give the split into groups of one degree, in as few micro-batches as memory allows."""
    wanted = np.full(len(batch), degree)
    if mode is Mode.FREE:
        return blocks_split(costs, batch, wanted, dealt(costs, batch, wanted))
    width, most = costs.ranks // int(costs.degrees[degree]), int(costs.most_tokens[degree])
    order = np.lexsort((-batch.tokens, -batch.load_s[degree]))
    loads, tokens = batch.load_s[degree, order].tolist(), batch.tokens[order].tolist()
    micro_batches = max(-(-sum(tokens) // (width * most)), 1)
    while (groups := _dealt(loads, tokens, most, micro_batches * width)) is None:
        micro_batches += max(micro_batches // 16, 1)
    group = np.empty(len(batch), dtype=np.int64)
    group[order] = groups
    seconds = np.bincount(group, batch.load_s[degree])
    turn = np.empty(len(seconds), dtype=np.int64)
    turn[np.argsort(-seconds, kind="stable")] = np.arange(len(seconds)) // width
    return placed(costs, np.full(len(seconds), degree), group, turn)


def _dealt(loads: list[float], tokens: list[int], most: int, count: int) -> list[int] | None:
    """Give a group of so many to each sequence, numbered as they are used; None where memory doesn't suffice."""
    heap: list[tuple[float, int, int]] = []
    used, chosen = 0, []
    for load, number in zip(loads, tokens, strict=True):
        if used < count:
            place, held, seconds = used, 0, 0.0
            used += 1
        else:
            passed = []
            while heap and heap[0][2] + number > most:
                passed.append(heappop(heap))
            if not heap:
                return None
            seconds, place, held = heappop(heap)
            for other in passed:
                heappush(heap, other)
        chosen.append(place)
        heappush(heap, (seconds + load, place, held + number))
    return chosen
