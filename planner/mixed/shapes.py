"""What may cross the links: the ways to order islands into pipelines, and replicas of them.

A shape is some chains of islands. A pipeline passes the islands of a chain in order; chains train replicas of the whole
model. Islands in none stand idle. So of two islands, A | B is data parallelism across the link, A > B and B > A are a
pipeline across it, and A and B alone are one island idle. Three have 13 such orders, 25 with idle ones; four 209. Of
more than MOST_PIPED islands each trains replicas of its own or stands idle, and no pipeline passes several.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise, permutations

from meshwright.hardware.islands import Islands

MOST_PIPED = 4

Chain = tuple[int, ...]
Shape = tuple[Chain, ...]


def shapes_of(islands: Islands) -> tuple[Shape, ...]:
    """Give the shapes whose neighbours in a chain have a link, chains in order of their first islands."""
    links = islands.link_of
    every = range(len(islands.islands))
    piped = len(islands.islands) <= MOST_PIPED
    found: dict[Shape, None] = {}
    for count in range(len(islands.islands), 0, -1):
        for chosen in combinations(every, count):
            for parts in _partitions(chosen) if piped else [tuple((island,) for island in chosen)]:
                for shape in _orders(parts):
                    if all(frozenset(pair) in links for chain in shape for pair in pairwise(chain)):
                        found[shape] = None
    return tuple(found)


def _partitions(items: Sequence[int]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Give every way to part some items."""
    if not items:
        yield ()
        return
    first, rest = items[0], items[1:]
    for count in range(len(rest) + 1):
        for beside in combinations(rest, count):
            others = tuple(item for item in rest if item not in beside)
            for parts in _partitions(others):
                yield ((first, *beside), *parts)


def _orders(parts: Sequence[tuple[int, ...]]) -> Iterator[Shape]:
    """Give every way to order the items within parts."""
    if not parts:
        yield ()
        return
    for chain in permutations(parts[0]):
        for rest in _orders(parts[1:]):
            yield (chain, *rest)


def describe_shape(shape: Shape, islands: Islands) -> str:
    """Give a shape in words."""
    names = [island.name for island in islands.islands]
    return " | ".join(" > ".join(names[island] for island in chain) for chain in shape)
