"""How a group shares its sequences, and which degrees that allows."""

from enum import StrEnum
from math import gcd

from meshwright.catalog.context_method import ContextMethod


class Method(StrEnum):
    """What the ranks of a group exchange.

    ulysses: heads for tokens; a degree divides a rank's query heads, or its key heads (arXiv 2309.14509).
    ring: keys and values go round beside attention, zig-zag, any degree (arXiv 2310.01889).
    bidirectional-ring: halves of them go both ways (TokenRing, arXiv 2412.20501).
    hybrid: Ulysses over neighbours of a node, a ring over the rest (USP, arXiv 2405.07719).
    linear-attention: the states of linear attention are gathered, of a size that doesn't depend on the length (LASP-2,
    arXiv 2502.07563).
    """

    ULYSSES = "ulysses"
    RING = "ring"
    BIDIRECTIONAL_RING = "bidirectional-ring"
    HYBRID = "hybrid"
    LINEAR_ATTENTION = "linear-attention"


def is_legal(method: Method, degree: int, *, heads: int, kv_heads: int) -> bool:
    """Tell whether a group of so many ranks can use a method, of heads that each rank has of the model's."""
    if method is Method.ULYSSES:
        return heads % degree == 0 or kv_heads % degree == 0
    return True


def ulysses_ranks(degree: int, *, heads: int, node_ranks: int) -> int:
    """Give over how many neighbours the hybrid exchanges heads: as many as heads and node allow, and divide it."""
    return gcd(gcd(degree, heads), node_ranks)


def context_method(method: Method, ulysses: int, degree: int) -> tuple[ContextMethod, int]:
    """Give what a layout calls a method of a group, and its `ulysses_parallel`."""
    if method is Method.HYBRID:
        if ulysses == degree:
            return ContextMethod.ULYSSES, 1
        return (ContextMethod.RING, 1) if ulysses == 1 else (ContextMethod.HYBRID, ulysses)
    if method is Method.ULYSSES:
        return ContextMethod.ULYSSES, 1
    if method is Method.BIDIRECTIONAL_RING:
        return ContextMethod.BIDIRECTIONAL_RING, 1
    return ContextMethod.RING, 1
