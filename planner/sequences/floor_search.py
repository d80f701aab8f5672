"""The search for a split in one mode: halving of the time of a step, under each floor of degrees.

A split within a given time is looked for by best fit (packing.py with barriers, free_packing.py without); the least
time for which one is found is halved down to. Floors, the least degree that is used, are tried from the one with the
lowest bound on, and left out where that bound is above what is known.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from meshwright.costmodels.layout import BoolArray
from meshwright.planner.sequences.best import Best
from meshwright.planner.sequences.degrees import is_chain
from meshwright.planner.sequences.differencing import MOST_CELLS, differenced, differenced_split
from meshwright.planner.sequences.free_packing import free_packed
from meshwright.planner.sequences.free_running import blocks_split, wanted_degrees
from meshwright.planner.sequences.mode import Mode
from meshwright.planner.sequences.packing import packed
from meshwright.planner.sequences.polishing import polished
from meshwright.planner.sequences.quick_bound import fewest_micro_batches, quick_bound_s
from meshwright.planner.sequences.shelf_search import Shelves
from meshwright.planner.sequences.shelves import shelved

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
# Of the floors, by their bounds.
FIRST, FURTHER, ALL = slice(0, 1), slice(1, None), slice(0, None)
# Beyond the micro-batches that memory asks for.
MORE_MICRO_BATCHES = 2


def search_floors(best: Best, modes: tuple[Mode, ...]) -> None:
    """Look for a better split in the given modes, then for changes that mend it."""
    _search_ways(best, modes)
    if not best.full and (best.mode is Mode.LOCKSTEP or is_chain(best.costs.degrees)) and not best.overdue:
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
            if best.overdue:
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
