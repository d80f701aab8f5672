"""What one rank exchanges with others: collectives of a kind over a group, with their payload."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Kinds of collectives, with what their payload is on a rank.

    all_gather: what it has afterwards. reduce_scatter, all_reduce: what it has before. all_to_all: what it hands in,
    its own part included. send, recv: the message.
    """

    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_REDUCE = "all_reduce"
    ALL_TO_ALL = "all_to_all"
    SEND = "send"
    RECV = "recv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """`count` collectives of a kind over a group of ranks, ascending, with `payload_bytes` in all."""

    kind: Kind
    ranks: tuple[int, ...]
    count: int
    payload_bytes: int


Totals = dict[tuple[Kind, tuple[int, ...]], tuple[int, int]]


def totals(transfers: Iterable[Transfer]) -> Totals:
    """Give count and bytes in all by kind and group."""
    found: Totals = {}
    for each in transfers:
        count, payload_bytes = found.get((each.kind, each.ranks), (0, 0))
        found[each.kind, each.ranks] = (count + each.count, payload_bytes + each.payload_bytes)
    return {key: value for key, value in found.items() if value[0]}


def by_kind(transfers: Iterable[Transfer]) -> dict[Kind, tuple[int, int]]:
    """Give count and bytes in all by kind, in the order of the kinds."""
    found = dict.fromkeys(Kind, (0, 0))
    for each in transfers:
        count, payload_bytes = found[each.kind]
        found[each.kind] = (count + each.count, payload_bytes + each.payload_bytes)
    return {kind: value for kind, value in found.items() if value[0]}
