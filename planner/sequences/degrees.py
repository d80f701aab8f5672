"""Which degrees groups may have."""

import numpy as np

from meshwright.costmodels.layout import IntArray
from meshwright.planner.sequences.group_costs import powers_of_two


def any_degrees(ranks: int, node_ranks: int) -> IntArray:
    """Give divisors of the ranks whose groups, placed in descending order, never straddle a node that they fit into.

    Those are whole nodes, as many as divide all of them, and inside a node a chain in which each degree divides the
    next. Powers of two where nodes don't divide the ranks.
    """
    if ranks % node_ranks:
        return powers_of_two(ranks)
    nodes = ranks // node_ranks
    found = [node_ranks * count for count in range(1, nodes + 1) if nodes % count == 0]
    inside = node_ranks
    while inside > 1:
        inside //= next(factor for factor in range(2, inside + 1) if inside % factor == 0)
        found.append(inside)
    return np.array(sorted(found), dtype=np.int64)


def is_chain(degrees: IntArray) -> bool:
    """Tell whether each degree divides the next, so that blocks of one are cut into blocks of another."""
    return bool((degrees[1:] % degrees[:-1] == 0).all())
