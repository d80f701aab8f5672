"""What fraction of tokens has to leave its device or node at least."""

import numpy as np

from meshwright.costmodels.layout import FloatArray
from meshwright.planner.experts.correlation import SAME, most_staying
from meshwright.planner.experts.routing import Routing

# Experts beyond which their correlation takes longer than the placement.
MOST_CORRELATED = 128


def cross_bound(routing: Routing, *, groups: int, size: int, most: FloatArray, alike: bool) -> float:
    """Give the least fraction of tokens with a source that leave their group, whatever the placement.

    A group holds at most `size` experts of a layer: of the tokens of an expert those for the `size` most frequent next
    ones stay at most, and, where no expert is in two groups, of those that an expert gets the ones of the `size` most
    frequent before it. Tokens of a home device or node stay at most where each expert is where it gets most from, or
    for the `size` experts that each gets most for.

    most: load of a group that no placement meant here is above [layers]. alike: whether replicas share tokens alike,
    or there are none; the correlation of experts bounds what stays then too.
    """
    if routing.tokens is not None:
        layers, devices, experts = routing.tokens.shape
        sent = routing.tokens.reshape(layers, groups, devices // groups, experts).sum(axis=2)
        by_source = _largest(sent, min(size, experts)).sum()
        stay = min(by_source, sent.max(axis=1).sum()) if size * groups == experts else by_source
        return _left(float(stay), float(sent.sum()))
    moves = routing.moves
    few = min(size, routing.experts)
    ahead = _largest(moves, few).sum(axis=1)
    behind = _largest(moves.swapaxes(1, 2), few).sum(axis=1)
    single = size == -(-routing.experts // groups)
    stay = np.minimum(ahead, behind) if single else ahead
    if alike and len(moves) and routing.experts <= MOST_CORRELATED:
        before, after = (
            _most_in_group(routing.loads[part], moves.sum(axis=axis), most[part], size=size)
            for part, axis in ((slice(None, -1), 2), (slice(1, None), 1))
        )
        stay = np.minimum(stay, most_staying(moves, before, after, groups=groups))
    return _left(float(stay.sum()), float(moves.sum()))


def _most_in_group(loads: FloatArray, tokens: FloatArray, most: FloatArray, *, size: int) -> FloatArray:
    """Give the most of the hops' tokens [hops, experts] that a group's experts, under the cap on loads, have."""
    largest = _largest(tokens, min(size, tokens.shape[1]))
    whole = tokens.sum(axis=1) / loads.sum(axis=1)
    same = (np.abs(tokens - loads * whole[:, None]) <= SAME * tokens.sum(axis=1, keepdims=True)).all(axis=1)
    capped = same & np.isfinite(most)
    return np.where(capped, np.minimum(largest, np.where(capped, most, 0.0) * whole * (1 + SAME)), largest)


def _largest(values: FloatArray, count: int) -> FloatArray:
    """Give the sum of the `count` largest along the last axis."""
    sums: FloatArray = np.partition(values, values.shape[-1] - count, axis=-1)[..., values.shape[-1] - count :].sum(
        axis=-1
    )
    return sums


def _left(stay: float, total: float) -> float:
    return max(0.0, 1.0 - stay / total) if total else 0.0
