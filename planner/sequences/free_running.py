"""A split for ranks that don't wait for one another after each micro-batch.

Ranks are cut into blocks of the largest degree, each of those into blocks of the next one, and so on. Degrees are gone
through from the largest: each block's ranks have then all worked equally long, so that none waits for another. Within a
degree the sequences that want it go, from the longest load on, to the block that is done first (LPT); those of a
block that memory doesn't hold together become several groups in turn.
"""

from heapq import heapify, heapreplace

import numpy as np

from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.split import Split


def wanted_degrees(batch: Batch, costs: GroupCosts, limit_s: float, degrees: BoolArray | None = None) -> IntArray:
    """Give the degree of each sequence that takes the fewest ranks' seconds among those that end in time.

    Where none does, the one at which it ends first. degrees: which may be used; all by default.
    """
    area_s = batch.load_s * costs.degrees[:, np.newaxis]
    alone_s = batch.alone_s if degrees is None else np.where(degrees[:, np.newaxis], batch.alone_s, np.inf)
    in_time = alone_s <= limit_s
    best = np.where(in_time, area_s, np.inf).argmin(axis=0)
    return np.asarray(np.where(in_time.any(axis=0), best, alone_s.argmin(axis=0)))


def dealt(costs: GroupCosts, batch: Batch, wanted: IntArray) -> IntArray:
    """Give the block of its degree of each sequence [sequences], each to the one that is done first."""
    block = np.zeros(len(batch), dtype=np.int64)
    done_s = np.zeros(0)
    last = 0
    for degree in range(len(costs.degrees) - 1, -1, -1):
        mine = np.flatnonzero(wanted == degree)
        if not len(mine):
            continue
        count, size = costs.ranks // int(costs.degrees[degree]), int(costs.degrees[degree])
        done_s = np.concatenate([np.repeat(done_s, last // size), np.zeros(count)])[:count]
        last = size
        order = mine[np.lexsort((-batch.tokens[mine], -batch.load_s[degree, mine]))]
        block[order], done_s = _dealt(
            done_s,
            batch.load_s[degree, order].tolist(),
            batch.tokens[order].tolist(),
            float(costs.fixed_s[degree]),
            int(costs.most_tokens[degree]),
        )
    return block


def _dealt(
    done_s: FloatArray, loads_s: list[float], tokens: list[int], fixed_s: float, most_tokens: int
) -> tuple[list[int], FloatArray]:
    """Deal sequences to the block done first; a group more costs its fixed part. Blocks have no group at first."""
    heap = list(zip(done_s.tolist(), range(len(done_s)), strict=True))
    heapify(heap)
    room = [0] * len(heap)
    chosen = []
    for load_s, count in zip(loads_s, tokens, strict=True):
        end_s, number = heap[0]
        end_s += load_s
        if room[number] < count:
            end_s += fixed_s
            room[number] = most_tokens
        room[number] -= count
        heapreplace(heap, (end_s, number))
        chosen.append(number)
    ends = np.empty(len(heap))
    for end_s, number in heap:
        ends[number] = end_s
    return chosen, ends


def blocks_split(costs: GroupCosts, batch: Batch, wanted: IntArray, block: IntArray) -> Split:
    """Make groups of what each block has, no more tokens in one than its memory holds, and give them their turns."""
    keys = wanted * (costs.ranks + 1) + block
    order = np.lexsort((-batch.tokens, keys))
    group_of = np.empty(len(batch), dtype=np.int64)
    groups = _cut(keys[order].tolist(), batch.tokens[order].tolist(), costs.most_tokens[wanted[order]].tolist())
    group_of[order] = groups
    first = np.zeros(max(groups) + 1, dtype=np.int64)
    first[group_of] = np.arange(len(batch))
    degree = wanted[first]
    first_rank = block[first] * costs.degrees[degree]
    return Split(
        degree=degree, first_rank=first_rank, micro_batch=turns_of_blocks(costs, degree, first_rank), group=group_of
    )


def _cut(keys: list[int], tokens: list[int], most_tokens: list[int]) -> list[int]:
    """Give the group of each sequence, of blocks one after another: first fit, the longest first."""
    found: list[int] = []
    rooms: list[int] = []
    start, last = 0, -1
    for key, count, most in zip(keys, tokens, most_tokens, strict=True):
        if key != last:
            start, last = len(rooms), key
        number = next((at for at in range(start, len(rooms)) if rooms[at] >= count), len(rooms))
        if number == len(rooms):
            rooms.append(most)
        rooms[number] -= count
        found.append(number)
    return found


def turns_of_blocks(costs: GroupCosts, degree: IntArray, first_rank: IntArray) -> IntArray:
    """Give each group its turn: behind all of larger degrees on its ranks, and behind its block's before it."""
    turn = np.zeros(len(degree), dtype=np.int64)
    next_turn = np.zeros(costs.ranks, dtype=np.int64)
    for index in np.unique(degree)[::-1]:
        mine = np.flatnonzero(degree == index)
        mine = mine[np.argsort(first_rank[mine], kind="stable")]
        starts = first_rank[mine]
        new = np.flatnonzero(np.diff(starts, prepend=-1))
        within = np.arange(len(mine)) - np.repeat(new, np.diff(np.append(new, len(mine))))
        turn[mine] = next_turn[starts] + within
        size = int(costs.degrees[index])
        blocks = starts[new]
        counts = np.diff(np.append(new, len(mine)))
        ranks = (blocks[:, np.newaxis] + np.arange(size)).ravel()
        next_turn[ranks] += np.repeat(counts, size)
    return turn
