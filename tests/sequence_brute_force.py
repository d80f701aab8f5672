"""The shortest step of a few sequences on a few ranks, with barriers and without, by trying every split."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from meshwright.planner.sequences import GroupCosts


def shortest_step_s(costs: GroupCosts, lengths: list[int]) -> float:
    """Give the least sum over micro-batches of their longest group: subsets one after another."""
    everything = (1 << len(lengths)) - 1
    group_s = [[_group_s(costs, lengths, subset, at) for subset in range(everything + 1)] for at in _degrees(costs)]
    sizes = costs.degrees.tolist()

    @cache
    def at_once(subset: int, ranks: int) -> float:
        if not subset:
            return 0.0
        first = subset & -subset
        return min(
            (
                max(group_s[at][part], at_once(subset ^ part, ranks - size))
                for part in _subsets(subset)
                if part & first
                for at, size in enumerate(sizes)
                if size <= ranks and np.isfinite(group_s[at][part])
            ),
            default=float("inf"),
        )

    @cache
    def in_turn(subset: int) -> float:
        if not subset:
            return 0.0
        first = subset & -subset
        return min(at_once(part, costs.ranks) + in_turn(subset ^ part) for part in _subsets(subset) if part & first)

    return in_turn(everything)


def shortest_free_step_s(costs: GroupCosts, lengths: list[int]) -> float:
    """Give the least of the longest sum of a rank's groups, each on an aligned block of ranks.

    Where each rank takes larger groups first, those of a block have all worked equally long, and none waits.
    """
    everything = (1 << len(lengths)) - 1
    group_s = [[_group_s(costs, lengths, subset, at) for subset in range(everything + 1)] for at in _degrees(costs)]
    best = float("inf")

    def add(left: int, done_s: tuple[float, ...]) -> None:
        nonlocal best
        if max(done_s) >= best:
            return
        if not left:
            best = max(done_s)
            return
        first = left & -left
        for part in _subsets(left):
            if not part & first:
                continue
            for at, size in enumerate(costs.degrees.tolist()):
                tried = set()
                for start in range(0, costs.ranks, size):
                    block = done_s[start : start + size]
                    if block not in tried:  # blocks that have worked equally long are alike
                        tried.add(block)
                        longer = tuple(seconds + group_s[at][part] for seconds in block)
                        add(left ^ part, (*done_s[:start], *longer, *done_s[start + size :]))

    add(everything, (0.0,) * costs.ranks)
    return best


def _degrees(costs: GroupCosts) -> range:
    return range(len(costs.degrees))


def _subsets(mask: int) -> Iterator[int]:
    part = mask
    while part:
        yield part
        part = (part - 1) & mask


def _group_s(costs: GroupCosts, lengths: list[int], subset: int, degree: int) -> float:
    chosen = [length for at, length in enumerate(lengths) if subset >> at & 1]
    if sum(chosen) > costs.most_tokens[degree]:
        return float("inf")
    squares = sum(kind.pair_s * length**2 / 2 for kind in costs.attention for length in chosen)
    return max(float(a * squares + b * sum(chosen) + c) for a, b, c in costs.pieces[degree])
