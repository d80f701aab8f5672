"""What fraction of tokens has to leave its device or node at least."""

import numpy as np

from meshwright.costmodels.layout import FloatArray
from meshwright.planner.experts.routing import Routing


def cross_bound(routing: Routing, *, groups: int, size: int) -> float:
    """Give the least fraction of tokens with a source that leave their group, whatever the placement.

    A group holds at most `size` experts of a layer: of the tokens of an expert those for the `size` most frequent next
    ones stay at most, and, where no expert is in two groups, of those that an expert gets the ones of the `size` most
    frequent before it. Tokens of a home device or node stay at most where each expert is where it gets most from, or
    for the `size` experts that each gets most for.
    """
    if routing.tokens is not None:
        layers, devices, experts = routing.tokens.shape
        sent = routing.tokens.reshape(layers, groups, devices // groups, experts).sum(axis=2)
        by_source = _largest(sent, min(size, experts)).sum()
        stay = min(by_source, sent.max(axis=1).sum()) if size * groups == experts else by_source
        return _left(float(stay), float(sent.sum()))
    moves = routing.moves
    most = min(size, routing.experts)
    ahead = _largest(moves, most).sum(axis=1)
    behind = _largest(moves.swapaxes(1, 2), most).sum(axis=1)
    single = size == -(-routing.experts // groups)
    return _left(float((np.minimum(ahead, behind) if single else ahead).sum()), float(moves.sum()))


def _largest(values: FloatArray, count: int) -> FloatArray:
    """Give the sum of the `count` largest along the last axis."""
    sums: FloatArray = np.partition(values, values.shape[-1] - count, axis=-1)[..., values.shape[-1] - count :].sum(
        axis=-1
    )
    return sums


def _left(stay: float, total: float) -> float:
    return max(0.0, 1.0 - stay / total) if total else 0.0
