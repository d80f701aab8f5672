"""Seeded routing statistics, as models show them."""

import numpy as np

from meshwright.costmodels.layout import FloatArray


def loads(
    layers: int, experts: int, kind: str, *, spread: float = 0.6, tokens: int = 2**19, seed: int = 0
) -> FloatArray:
    """Tokens [layers, experts]; popularities are `lognormal` or `dirichlet` of a spread, or `zipf` of an exponent."""
    draw = np.random.default_rng(seed)
    out = np.empty((layers, experts))
    for layer in range(layers):
        if kind == "zipf":
            popular = (1.0 / np.arange(1, experts + 1) ** spread)[draw.permutation(experts)]
        elif kind == "lognormal":
            popular = np.exp(draw.normal(0, spread, experts))
        else:
            popular = draw.gamma(spread, 1.0, experts)
        out[layer] = draw.multinomial(tokens, popular / popular.sum())
    return out


def chain(
    layers: int,
    experts: int,
    *,
    strength: float = 0.4,
    fanout: int = 3,
    domains: int = 0,
    tokens: int = 65536,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray]:
    """Loads [layers, experts] and transitions [layers - 1, experts, experts] of tokens with preferred successors.

    With probability `strength` a token goes on to one of `fanout` successors of its expert, of the same one of
    `domains` where there are any, else by the popularity of the next layer's experts.
    """
    draw = np.random.default_rng(seed)
    popular = loads(layers, experts, "lognormal", tokens=10**6, seed=seed + 1) + 1.0
    popular /= popular.sum(axis=1, keepdims=True)
    domain = np.stack([draw.permutation(np.arange(experts) % max(domains, 1)) for _ in range(layers)])
    counts, moves = np.zeros((layers, experts)), np.zeros((layers - 1, experts, experts))
    counts[0] = draw.multinomial(tokens, popular[0])
    for layer in range(layers - 1):
        for expert in range(experts):
            near = np.flatnonzero(domain[layer + 1] == domain[layer, expert]) if domains else np.arange(experts)
            some = min(fanout, len(near))
            weight = popular[layer + 1][near]
            chosen = draw.choice(near, some, replace=False, p=weight / weight.sum())
            chance = (1 - strength) * popular[layer + 1]
            chance[chosen] += strength * draw.dirichlet(np.ones(some))
            moves[layer, expert] = draw.multinomial(int(counts[layer, expert]), chance / chance.sum())
        counts[layer + 1] = moves[layer].sum(axis=0)
    return counts, moves
