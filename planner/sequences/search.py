"""The search for a split: in each mode, on all ranks and on half of them, and of few sequences under each restriction.

What a restriction allows, the search without it allows too, but it need not come to it: of few sequences on few ranks
it therefore looks for what each would have given, so that allowing more never slows a step.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.best import Best
from meshwright.planner.sequences.floor_search import search_floors
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.mode import Mode
from meshwright.planner.sequences.quick_bound import bound_s, quick_bound_s

# Of at most so many sequences and ranks together restrictions are looked under too: of more it takes too long.
FEW = 64


def search(best: Best, modes: tuple[Mode, ...]) -> None:
    """Look for a better split in the given modes.

    A split over half of the ranks is one over all: where none is known to be worse, it is looked for too, so that more
    ranks never slow a step.
    """
    few = len(best.batch) + best.costs.ranks <= FEW
    _search_ranks(best, modes)
    for restricted, own in _restricted(best, modes) if few else ():
        _search_ranks(restricted, own)
        best.offer(restricted.split, restricted.mode)
    if not best.full and (few or not best.late):
        _search_half(best, modes, search)


def _search_ranks(best: Best, modes: tuple[Mode, ...]) -> None:
    search_floors(best, modes)
    if best.full:
        _search_emptier(best, modes)


def _search_emptier(best: Best, modes: tuple[Mode, ...]) -> None:
    """Fill the best split of those that may leave ranks empty: often it leaves none."""
    found = replace(best, full=False)
    _search_unrestricted(found, modes)
    best.offer(found.split, found.mode)


def _search_unrestricted(best: Best, modes: tuple[Mode, ...]) -> None:
    search_floors(best, modes)
    if not best.late:
        _search_half(best, modes, _search_unrestricted)


def _search_half(best: Best, modes: tuple[Mode, ...], search_in: Callable[[Best, tuple[Mode, ...]], None]) -> None:
    """Look for a better split over half of the ranks, by one of the searches."""
    half = halved(best.costs, best.batch)
    if half is None:
        return
    part = best.batch.of_degrees(len(half.degrees))
    if quick_bound_s(half, part) >= best.seconds:
        return
    found = Best.homogeneous(half, part, modes[0], until=best.until)
    if found is not None:
        search_in(found, modes)
        best.offer(found.split, found.mode)


def halved(costs: GroupCosts, batch: Batch) -> GroupCosts | None:
    """Give the costs on half of the ranks, None where their number is odd or they don't hold the batch's longest."""
    ranks = costs.ranks // 2
    kept = int((costs.degrees <= ranks).sum())
    if costs.ranks % 2 or batch.tokens.max() > costs.most_tokens[:kept].max(initial=0):
        return None
    return replace(costs.of_degrees(kept), ranks=ranks)


def _restricted(best: Best, modes: tuple[Mode, ...]) -> Iterator[tuple[Best, tuple[Mode, ...]]]:
    """Give where a search begins under each restriction that could give a better split, and its modes.

    Restrictions are barriers, no rank without a sequence, no groups above a degree, and those together.
    """
    wholes = (True,) if best.full else (False, True)
    for count in range(len(best.costs.degrees), 0, -1):
        costs, batch = best.costs.of_degrees(count), best.batch.of_degrees(count)
        if batch.tokens.max() > costs.most_tokens.max():
            return
        for own, full in product(dict.fromkeys((modes, (Mode.LOCKSTEP,))), wholes):
            if (count, own, full) == (len(best.costs.degrees), modes, best.full):
                continue
            if best.overdue or bound_s(costs, batch, own) >= best.seconds:
                continue
            found = Best.homogeneous(costs, batch, own[0], until=best.until, full=full)
            if found is not None:
                yield found, own
