"""What no split's step is shorter than, in about a millisecond for a step of usual size.

    longest    every sequence is in some group: T >= max over sequences of min over degrees of its time alone
    area       a group of degree d that takes t keeps d ranks busy for t, so that with M micro-batches
                   ranks T >= sum over sequences of min over degrees of d load(d) + ranks M fixed
               where ranks without a group wait as long as one with the shortest, and M is at least what memory asks for
               (without a barrier: M is in the mean over ranks at least that, and at least 1 of ranks that work at all)
    long       two sequences whose loads are more than half of what fixed parts leave of the step share no rank: each
               has a group of its own, which adds d times what the fixed part of its degree is above the least one

In a step of T no sequence is in a group that takes it alone longer than T: the area bound is the least T that keeps to
that. A group never takes less than by the first of its pieces, which is the one that counts here.
"""

import numpy as np

from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.mode import Mode

# Halvings of the interval in which the area bound is.
ROUNDS = 12


def fewest_micro_batches(costs: GroupCosts, batch: Batch) -> int:
    """Give how many micro-batches memory asks for at least."""
    most = int((costs.ranks // costs.degrees * costs.most_tokens).max())
    return max(-(-int(batch.tokens.sum()) // most), 1)


def quick_bound_s(
    costs: GroupCosts, batch: Batch, *, micro_batches: int | None = None, degrees: BoolArray | None = None
) -> float:
    """Give what a step takes at least, in seconds, with a barrier after each micro-batch or without.

    micro_batches: of steps of at least so many with barriers. degrees: of steps of groups of these alone [degrees].
    """
    alone_s = batch.alone_s if degrees is None else batch.alone_s[degrees]
    sizes = costs.degrees if degrees is None else costs.degrees[degrees]
    load_s = batch.load_s if degrees is None else batch.load_s[degrees]
    area_s = load_s * sizes[:, np.newaxis] / costs.ranks
    longest_s = float(alone_s.min(axis=0).max())
    if not np.isfinite(longest_s):
        return float(np.inf)
    fixed_s = _fixed_s(costs, batch, micro_batches)
    long_s = area_s + _more_fixed_s(costs, sizes, degrees)
    least_s = float(costs.fixed_s.min())

    def asked_s(limit_s: float) -> float:
        own_s = np.where(load_s > (limit_s - least_s) / 2, long_s, area_s)
        return float(np.where(alone_s <= limit_s, own_s, np.inf).min(axis=0).sum()) + fixed_s

    low = longest_s
    high = asked_s(low)
    if high <= low:
        return low
    low = max(low, asked_s(high))
    for _ in range(ROUNDS):
        if high <= low * (1 + 1e-6):
            break
        middle = 0.5 * (low + high)
        low, high = (low, middle) if asked_s(middle) <= middle else (middle, high)
    return low


def bound_s(costs: GroupCosts, batch: Batch, modes: tuple[Mode, ...]) -> float:
    """Give what a step takes at least in the mode of these with the fewest barriers."""
    return quick_bound_s(costs, batch) if Mode.FREE in modes else lockstep_bound_s(costs, batch)


def lockstep_bound_s(costs: GroupCosts, batch: Batch) -> float:
    """Give what a step with barriers takes at least."""
    return quick_bound_s(costs, batch, micro_batches=fewest_micro_batches(costs, batch))


def _more_fixed_s(costs: GroupCosts, sizes: IntArray, degrees: BoolArray | None) -> FloatArray:
    """Give the mean over ranks of what a group's fixed part is above the least one [degrees, 1]."""
    fixed_s = costs.fixed_s if degrees is None else costs.fixed_s[degrees]
    return np.asarray((sizes * (fixed_s - costs.fixed_s.min()) / costs.ranks)[:, np.newaxis])


def _fixed_s(costs: GroupCosts, batch: Batch, micro_batches: int | None) -> float:
    """Give the fixed parts that every rank has in the mean."""
    if micro_batches is not None:
        return float(costs.fixed_s.min()) * micro_batches
    share = float(batch.tokens.sum()) * float((costs.degrees / costs.most_tokens).min()) / costs.ranks
    whole = fewest_micro_batches(costs, batch)
    return float(costs.fixed_s.min()) * (max(share, 1.0) if costs.free_allowed else whole)
