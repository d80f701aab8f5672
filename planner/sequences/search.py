"""The search for a split: halving of the time of a step, in each mode, under each floor of degrees.

A split within a given time is looked for by best fit (packing.py with barriers, free_packing.py without); the least
time for which one is found is halved down to. Floors, the least degree that is used, are tried from the one with the
lowest bound on, and left out where that bound is above what is known.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from time import perf_counter

import numpy as np

from meshwright.costmodels.layout import BoolArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.degrees import is_chain
from meshwright.planner.sequences.differencing import MOST_CELLS, differenced, differenced_split
from meshwright.planner.sequences.free_packing import free_packed
from meshwright.planner.sequences.free_running import blocks_split, wanted_degrees
from meshwright.planner.sequences.full_ranks import filled
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.homogeneous import best_homogeneous
from meshwright.planner.sequences.mode import Mode
from meshwright.planner.sequences.packing import packed
from meshwright.planner.sequences.polishing import polished
from meshwright.planner.sequences.quick_bound import fewest_micro_batches, quick_bound_s
from meshwright.planner.sequences.shelf_search import Shelves
from meshwright.planner.sequences.shelves import shelved
from meshwright.planner.sequences.split import Split, step_s

# By how much the first try is above the bound, and by how much further each next one is until one succeeds.
FIRST_EXCESS = 5e-3
GROWTH = 4.0
# By how much a try is above the bound at most.
MOST_EXCESS = 0.5
# A floor but the first is tried only where its bound is further than this below what is known.
WORTHWHILE = 2e-2
# In lockstep groups aren't filled up only where that succeeds no sooner than so far above the bound.
MUCH = 0.05
# How many times a fixed part groups are filled up for at last, how often, and by how much a step is then to end sooner.
FILLS = (3.0, 0.3, 1.0)
MOST_REFINED = 4
REFINED = 1.5e-3
# Where halving ends, relative to the time.
PRECISION = 2e-3
# Sequences and ranks of all tries together, and how many there are at least.
EFFORT = 12_000
EFFORT_IN_LOCKSTEP = 20_000
FEWEST_TRIES = 18
FEWEST_TRIES_IN_LOCKSTEP = 11
# The same of problems of no more sequences and ranks than this, which have the time for it.
FEWEST_TRIES_OF_FEWER = 28
FEWER = 4096
# Of the floors, by their bounds.
FIRST, FURTHER, ALL = slice(0, 1), slice(1, None), slice(0, None)
# Beyond the micro-batches that memory asks for.
MORE_MICRO_BATCHES = 2


@dataclass(slots=True)
class Best:
    """The best split so far, and when to stop looking for a better one.

    until: a moment of perf_counter; infinite where only the search's own measure counts.
    full: whether each rank needs a sequence in each micro-batch.
    tries: how many more splits may be looked for: as many as EFFORT allows of a problem of this size.
    """

    costs: GroupCosts
    batch: Batch
    seconds: float
    split: Split
    mode: Mode
    until: float = float("inf")
    full: bool = False
    tries: float = field(init=False)

    def __post_init__(self) -> None:
        effort = EFFORT_IN_LOCKSTEP if self.mode is Mode.LOCKSTEP else EFFORT
        fewest = FEWEST_TRIES_IN_LOCKSTEP if self.mode is Mode.LOCKSTEP else FEWEST_TRIES
        size = len(self.batch) + self.costs.ranks
        if self.mode is Mode.LOCKSTEP and size <= FEWER:
            fewest = FEWEST_TRIES_OF_FEWER
        self.tries = max(effort // size, fewest)

    def offer(self, split: Split, mode: Mode) -> float:
        """Take a split if it is better, and give its seconds."""
        if self.full:
            whole = filled(self.costs, self.batch, split)
            if whole is None:
                return float("inf")
            split = whole
        seconds = step_s(self.costs, self.batch, split, mode)
        if seconds < self.seconds:
            self.seconds, self.split, self.mode = seconds, split, mode
        return seconds

    @property
    def late(self) -> bool:
        """Whether time or tries are up."""
        return self.tries <= 0 or perf_counter() > self.until


def search(best: Best, modes: tuple[Mode, ...]) -> None:
    """Look for a better split in the given modes.

    A split over half of the ranks is one over all: where none is known to be worse, it is looked for too, so that more
    ranks never slow a step.
    """
    _search_all(best, modes)
    if best.full:
        _search_emptier(best, modes)
        return
    half = halved(best.costs, best.batch)
    if half is None or best.late:
        return
    rows = len(half.degrees)
    part = replace(best.batch, load_s=best.batch.load_s[:rows], alone_s=best.batch.alone_s[:rows])
    if quick_bound_s(half, part) >= best.seconds:
        return
    first = best_homogeneous(half, part, modes[0])
    if first is None:
        return
    found = Best(costs=half, batch=part, seconds=first[0], split=first[1], mode=modes[0], until=best.until)
    search(found, modes)
    best.offer(found.split, found.mode)


def _search_emptier(best: Best, modes: tuple[Mode, ...]) -> None:
    """Fill the best split of those that may leave ranks empty: often it leaves none."""
    seconds, split = best.seconds, best.split
    found = Best(costs=best.costs, batch=best.batch, seconds=seconds, split=split, mode=best.mode, until=best.until)
    search(found, modes)
    best.offer(found.split, found.mode)


def halved(costs: GroupCosts, batch: Batch) -> GroupCosts | None:
    """Give the costs on half of the ranks, None where their number is odd or they don't hold the batch's longest."""
    ranks = costs.ranks // 2
    kept = costs.degrees <= ranks
    if costs.ranks % 2 or batch.tokens.max() > costs.most_tokens[kept].max(initial=0):
        return None
    return replace(
        costs,
        ranks=ranks,
        degrees=costs.degrees[kept],
        pieces=costs.pieces[kept],
        most_tokens=costs.most_tokens[kept],
    )


def _search_all(best: Best, modes: tuple[Mode, ...]) -> None:
    _search_ways(best, modes)
    if not best.full and (best.mode is Mode.LOCKSTEP or is_chain(best.costs.degrees)) and perf_counter() < best.until:
        best.offer(polished(best.costs, best.batch, best.split, best.mode), best.mode)


def _search_ways(best: Best, modes: tuple[Mode, ...]) -> None:
    fewest = fewest_micro_batches(best.costs, best.batch)
    if len(best.costs.degrees) == 1:
        _search_differences(best, modes[0], fewest)
    nested = is_chain(best.costs.degrees) and not best.full
    if Mode.FREE in modes and nested:
        _search_free(best, FIRST)
        _search_lockstep(best, Mode.FREE, fewest, FIRST)
        _search_shelves(best, Mode.FREE)
        _search_free(best, FURTHER)
        _refine_free(best)
        return
    _search_lockstep(best, modes[0], fewest, FIRST)
    _search_shelves(best, modes[0])
    _search_lockstep(best, modes[0], fewest, FURTHER)
    for micro_batches in range(fewest + 1, fewest + MORE_MICRO_BATCHES + 1):
        _search_lockstep(best, modes[0], micro_batches, ALL)


def _search_differences(best: Best, mode: Mode, fewest: int) -> None:
    """Balance groups of the only degree by differencing."""
    costs, batch = best.costs, best.batch
    width = costs.ranks // int(costs.degrees[0])
    if len(batch) * width * fewest > MOST_CELLS:
        return
    if mode is Mode.FREE and not best.full:
        best.offer(
            blocks_split(costs, batch, np.zeros(len(batch), dtype=np.int64), differenced(batch.load_s[0], width)), mode
        )
        return
    for micro_batches in range(fewest, fewest + MORE_MICRO_BATCHES + 1):
        split = differenced_split(costs, batch, micro_batches)
        if split is not None:
            best.offer(split, mode)
            return


def _search_shelves(best: Best, mode: Mode) -> None:
    """Look for micro-batches of unlike times."""

    def spend(sequences: int) -> bool:
        if best.late:
            return False
        best.tries -= sequences / len(best.batch)
        return True

    Shelves(
        costs=best.costs,
        batch=best.batch,
        offer=lambda split: best.offer(split, mode),
        known_s=lambda: best.seconds,
        spend=spend,
    ).search()


def _search_free(best: Best, floors: slice) -> None:
    costs, batch = best.costs, best.batch
    for floor, bound_s in islice(_floors(best, micro_batches=None), floors.start, floors.stop):
        ways = [1.0, 0.0]

        def attempt(limit_s: float, allowed: BoolArray = floor, ways: list[float] = ways) -> float | None:
            wanted = wanted_degrees(batch, costs, limit_s, allowed)
            for fill in ways:
                best.tries -= 1
                found = free_packed(costs, batch, wanted, limit_s, fill=fill)
                if found is not None:
                    ways[:] = [fill]  # what succeeded is what is halved on with
                    return best.offer(blocks_split(costs, batch, *found), Mode.FREE)
            return None

        _halve(best, attempt, bound_s)


def _refine_free(best: Best) -> None:
    """Try to end a little sooner, with groups filled up more readily and less."""
    costs, batch = best.costs, best.batch
    for fill in FILLS:
        for _ in range(MOST_REFINED):
            if perf_counter() > best.until:
                return
            limit_s = best.seconds * (1 - REFINED)
            found = free_packed(costs, batch, wanted_degrees(batch, costs, limit_s), limit_s, fill=fill)
            if found is None:
                break
            best.offer(blocks_split(costs, batch, *found), Mode.FREE)


def _search_lockstep(best: Best, mode: Mode, micro_batches: int, floors: slice) -> None:
    """Look for micro-batches of equal times, under some of the floors, those with the lowest bounds first."""
    costs, batch = best.costs, best.batch
    for floor, bound_s in islice(_floors(best, micro_batches=micro_batches), floors.start, floors.stop):
        ways = [True, False]

        def attempt(
            limit_s: float, allowed: BoolArray = floor, ways: list[bool] = ways, bound_s: float = bound_s
        ) -> float | None:
            each_s = limit_s / micro_batches
            for fill in ways[:1] if limit_s < bound_s * (1 + MUCH) else ways:
                best.tries -= 1
                groups = packed(costs, batch, each_s, micro_batches=micro_batches, degrees=allowed, fill=fill)
                if groups is not None:
                    ways[:] = [fill]  # what succeeded is what is halved on with
                    return best.offer(shelved(costs, batch, groups, micro_batches), mode)
            return None

        _halve(best, attempt, bound_s)


def _floors(best: Best, *, micro_batches: int | None) -> Iterator[tuple[BoolArray, float]]:
    """Give the degrees of each floor whose bound is below what is known, the lowest floor first: its bound is too."""
    costs, batch = best.costs, best.batch
    for floor in range(len(costs.degrees)):
        degrees = np.arange(len(costs.degrees)) >= floor
        bound_s = quick_bound_s(costs, batch, micro_batches=micro_batches, degrees=degrees)
        if best.late or bound_s * (1 + (WORTHWHILE if floor else PRECISION)) >= best.seconds:
            return
        yield degrees, bound_s


def _halve(best: Best, attempt: Callable[[float], float | None], bound_s: float) -> None:
    low = high = bound_s
    excess = FIRST_EXCESS
    while True:
        high = bound_s * (1 + excess)
        if excess > MOST_EXCESS or best.late:
            return
        if high >= best.seconds:
            high = best.seconds
            break
        if attempt(high) is not None:
            break
        low, excess = high, excess * GROWTH
    high = min(high, best.seconds)
    while high > low * (1 + PRECISION) and not best.late:
        middle = 0.5 * (low + high)
        if attempt(middle) is None:
            low = middle
        else:
            high = min(middle, best.seconds)
