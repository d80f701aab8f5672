"""One layer, given what each expert gains in each group: an assignment problem, with a cap on the groups' loads."""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.deadline import NEVER, Deadline

# Exchanges to bring the groups of a layer under the cap, and further ones that gain tokens.
MOST_EXCHANGES = 400


def assigned(gains: FloatArray, *, size: int) -> IntArray:
    """Give the group of each expert [experts] of the largest sum of gains [experts, groups], `size` at most."""
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - slow to import, and balance does without

    _, column = linear_sum_assignment(np.repeat(gains, size, axis=1), maximize=True)
    group: IntArray = column // size
    return group


def capped(
    home: IntArray, gains: FloatArray, weights: FloatArray, *, cap: float, deadline: Deadline = NEVER
) -> IntArray:
    """Give homes whose groups are under the cap, or as near to it as exchanges of two experts come.

    Of the exchanges that relieve the heaviest group without lifting another one above the cap, or where none does
    above what the heaviest then has, the one that costs least tokens for the load it moves is done.
    home: group of each expert; gains: [experts, groups]; weights: [experts]; cap: the most load of a group.
    """
    home = home.copy()
    groups = gains.shape[1]
    for _ in range(MOST_EXCHANGES):
        load = np.bincount(home, weights, minlength=groups)
        heavy = int(load.argmax())
        if load[heavy] <= cap or deadline.passed():
            break
        mine, theirs = np.flatnonzero(home == heavy), np.flatnonzero(home != heavy)
        there = home[theirs]
        moved = weights[mine][:, None] - weights[theirs]
        after = np.maximum(load[heavy] - moved, load[there] + moved)
        lost = gains[mine, heavy][:, None] - gains[mine][:, there] + gains[theirs, there] - gains[theirs, heavy]
        useful = (moved > 0) & (after < load[heavy] * (1 - 1e-9))
        if not useful.any():
            break
        fine = useful & (load[there] + moved <= cap)
        score = lost / np.minimum(np.maximum(moved, 1e-300), load[heavy] - cap) if fine.any() else after
        one, other = np.unravel_index(np.where(fine if fine.any() else useful, score, np.inf).argmin(), moved.shape)
        home[mine[one]], home[theirs[other]] = there[other], heavy
    return home


def exchanged(
    home: IntArray, gains: FloatArray, weights: FloatArray, *, cap: float, deadline: Deadline = NEVER
) -> IntArray:
    """Give homes after all exchanges of two experts that gain tokens and lift no group above the cap.

    Arguments as for `capped`; a group that is above the cap already may get no heavier.
    """
    home = home.copy()
    experts = np.arange(len(home))
    for _ in range(MOST_EXCHANGES):
        if deadline.passed():
            break
        load = np.bincount(home, weights, minlength=gains.shape[1])
        to = gains[:, home] - gains[experts, home][:, None]
        gained = to + to.T
        moved = weights[:, None] - weights
        room = np.maximum(cap, load)
        fits = (load[home] + moved <= room[home]) & (load[home][:, None] - moved <= room[home][:, None])
        gained = np.where(fits & (home[:, None] != home), gained, 0.0)
        best = int(gained.argmax())
        one, other = divmod(best, len(home))
        if gained[one, other] <= 1e-9 * max(1.0, float(np.abs(gains).max())):
            break
        home[one], home[other] = home[other], home[one]
    return home
