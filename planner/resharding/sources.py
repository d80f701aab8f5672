"""Which of several ranks that hold the same sends it: so that the busiest sender sends as little as can be.

Transfers that the same ranks can serve are one set. With b_k bytes of set k and x_kr of them sent by its member r:

    least z      where  sum over r of x_kr = b_k     each set is sent
                        sum over k of x_kr <= z      nobody sends more than the busiest
                        x_kr >= 0

a linear program, of each connected part of ranks and sets for itself; z bounds every choice from below. Its bytes are
handed out transfer by transfer, in order: each goes to the member in whose part of the set's bytes its middle lies, so
that a rank sends at most a transfer a set more than its part.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.catalog.errors import SolverFailed
from meshwright.costmodels.layout import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Sets:
    """Distinct sets of members that can serve a transfer.

    of: the set of each transfer, [transfers]. start, size: of each set in `members`. bytes: of each set's transfers.
    """

    of: IntArray
    start: IntArray
    size: IntArray
    members: IntArray
    bytes: FloatArray


def sets_of(low: IntArray, high: IntArray, members: IntArray, transfer_bytes: IntArray) -> Sets:
    """Find the distinct sets among members[low:high] of each transfer.

    Sets are told apart by the sum of a mixed number of each member; a set that another is taken for by chance would
    only share its bytes out worse.
    """
    mixed = _mixed(members.astype(np.uint64))
    total = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(mixed)])
    _, representative, of = np.unique(total[high] - total[low], return_index=True, return_inverse=True)
    size = (high - low)[representative]
    start = np.cumsum(size) - size
    within = np.arange(int(size.sum())) - np.repeat(start, size)
    return Sets(
        of=of,
        start=start,
        size=size,
        members=members[np.repeat(low[representative], size) + within],
        bytes=np.bincount(of, weights=transfer_bytes, minlength=len(size)).astype(float),
    )


def even_quotas(sets: Sets) -> FloatArray:
    """Give each member of a set the same bytes of it, in order of `sets.members`."""
    return np.repeat(sets.bytes / sets.size, sets.size)


def least_busy_quotas(sets: Sets) -> tuple[FloatArray, float]:
    """Give the bytes of each member of each set by the linear program, and those of the busiest at the least.

    Raises SolverFailed where the solver finds no answer.
    """
    shared = np.repeat(sets.size > 1, sets.size)
    quotas = even_quotas(sets)
    if not shared.any():
        return quotas, _busiest(sets, quotas)
    own = np.bincount(sets.members, weights=np.where(shared, 0.0, quotas)).astype(float)
    quotas[shared] = _solved(sets, shared, own)
    return quotas, _busiest(sets, quotas)


def picked(sets: Sets, quotas: FloatArray, transfer_bytes: IntArray) -> IntArray:
    """Give for each transfer which member of its set serves it, by what each is to serve of the set."""
    order = np.argsort(sets.of, kind="stable")
    weights = transfer_bytes[order].astype(float)
    middle = np.cumsum(weights) - weights / 2
    member = np.searchsorted(np.cumsum(quotas), middle, side="right")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = member - sets.start[sets.of[order]]
    return np.clip(place, 0, sets.size[sets.of] - 1)


def _busiest(sets: Sets, quotas: FloatArray) -> float:
    return float(np.bincount(sets.members, weights=quotas).max(initial=0.0))


def _solved(sets: Sets, shared: np.ndarray[tuple[int], np.dtype[np.bool_]], own: FloatArray) -> FloatArray:
    from scipy.optimize import linprog  # noqa: PLC0415 - slow to import
    from scipy.sparse import coo_array, csr_array, hstack  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    set_of = np.repeat(np.arange(len(sets.size)), sets.size)[shared]
    used, which = np.unique(set_of, return_inverse=True)
    ranks, rank = np.unique(sets.members[shared], return_inverse=True)
    scale = max(float(sets.bytes.max()), 1.0)
    variables = np.arange(len(rank))
    links = coo_array((np.ones(len(rank)), (rank, len(ranks) + which)), shape=(len(ranks) + len(used),) * 2)
    parts, part = connected_components(links, directed=False)
    sends = csr_array((np.ones(len(rank)), (rank, variables)), shape=(len(ranks), len(rank)))
    busiest = csr_array((-np.ones(len(ranks)), (np.arange(len(ranks)), part[: len(ranks)])), shape=(len(ranks), parts))
    served = csr_array((np.ones(len(rank)), (which, variables)), shape=(len(used), len(rank)))
    nothing = csr_array((len(used), parts))
    found = linprog(
        np.concatenate([np.zeros(len(rank)), np.ones(parts)]),
        A_ub=hstack([sends, busiest], format="csr"),
        b_ub=-own[ranks] / scale,
        A_eq=hstack([served, nothing], format="csr"),
        b_eq=sets.bytes[used] / scale,
        method="highs",
    )
    if found.x is None:
        raise SolverFailed(f"the linear program of who sends what has no answer: {found.message}")
    return np.asarray(np.maximum(found.x[: len(rank)], 0.0) * scale)


def _mixed(numbers: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Mix the bits of each number (the finaliser of splitmix64, doi 10.1145/2714064.2660195)."""
    mixed = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
