"""Small layers, searched fully.

Heaviest first, each expert is given every set of devices that slots allow; a branch ends where a device reaches the
best load so far. Devices that are loaded and filled alike are alike, so of them only how many are taken counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, product

Sets = tuple[tuple[int, ...], ...]

# What is equal but for rounding is no better.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """The end of a search.

    sets: the devices of each expert, None where nothing lighter than what was known was found. complete: whether
    nothing is lighter than that. visited: how many partial placements were looked at.
    """

    sets: Sets | None
    largest: float
    complete: bool
    visited: int


@dataclass(slots=True, kw_only=True)
class _Search:
    weights: tuple[float, ...]
    bound: float
    limit: int
    filled: bool
    best: float
    found: Sets | None = None
    visited: int = 0

    def over(self) -> bool:
        return self.visited >= self.limit or self.best <= self.bound * (1 + ROUNDING)

    def visit(self, loads: tuple[float, ...], free: tuple[int, ...], path: Sets) -> None:
        self.visited += 1
        if len(path) == len(self.weights):
            self.best, self.found = max(loads), path
            return
        weight, after = self.weights[len(path)], len(self.weights) - len(path) - 1
        for chosen in _device_sets(loads, free, after, filled=self.filled):
            if self.over():
                return
            load = weight / len(chosen)
            if max(loads[device] for device in chosen) + load < self.best * (1 - ROUNDING):
                self.visit(
                    tuple(held + load if device in chosen else held for device, held in enumerate(loads)),
                    tuple(left - (device in chosen) for device, left in enumerate(free)),
                    (*path, chosen),
                )


def searched(
    weights: tuple[float, ...], *, devices: int, size: int, known: float, bound: float, limit: int, filled: bool
) -> Searched:
    """Search one layer for a placement with a lighter largest load than `known`.

    weights: of the experts, heaviest first. size: slots of a device. bound: no placement is lighter.
    limit: of partial placements to look at. filled: whether no slot may stay empty.
    """
    search = _Search(weights=weights, bound=bound, limit=limit, filled=filled, best=known)
    if not search.over():
        search.visit((0.0,) * devices, (size,) * devices, ())
    complete = search.visited < limit or search.best <= bound * (1 + ROUNDING)
    return Searched(sets=search.found, largest=search.best, complete=complete, visited=search.visited)


def _device_sets(
    loads: tuple[float, ...], free: tuple[int, ...], after: int, *, filled: bool
) -> Iterator[tuple[int, ...]]:
    """Give the sets of devices that an expert may be on, one of those alike, where `after` experts are still to come.

    Each of those needs a slot; where all are to be filled, they can fill one on each device.
    """
    left = sum(free)
    state = sorted(range(len(loads)), key=lambda device: (loads[device], free[device]))
    classes = [tuple(alike) for _, alike in groupby(state, key=lambda device: (loads[device], free[device]))]
    needed = [len(alike) if filled and free[alike[0]] > after else 0 for alike in classes]
    choices = [
        range(least, (len(alike) if free[alike[0]] else 0) + 1) for least, alike in zip(needed, classes, strict=True)
    ]
    for taken in product(*choices):
        count = sum(taken)
        if count and left - count >= after:
            yield tuple(device for alike, number in zip(classes, taken, strict=True) for device in alike[:number])
