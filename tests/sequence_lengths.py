"""Seeded lengths of sequences, for benchmarks.

`wikipedia` draws from the histogram of a million tokenised articles that was published with FlexSP (branch `flexsp` of
Hetu-Galvatron): powers of two from 32 to 4 Mi, and how many articles are below each. The others are made up: a
lognormal body and a truncated Pareto tail, by weight of the tail.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray

ARTICLES = (5252, 37073, 170126, 202934, 210819, 161687, 108518, 59627, 27972, 11221, 3467, 1027, 228, 42, 6, 0.5, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Median and spread (of the logarithm) of the body; share, exponent and least length of the tail."""

    median: float
    spread: float
    tail: float = 0.0
    exponent: float = 1.0
    from_length: float = 8_192.0
    longest: int = 2_097_152


SHAPES = {
    "web": Shape(median=600, spread=1.15, tail=0.02, exponent=1.05, from_length=6_000),
    "code": Shape(median=900, spread=1.35, tail=0.045, exponent=0.95, from_length=8_000),
    "books": Shape(median=700, spread=1.40, tail=0.03, exponent=0.60, from_length=8_000),
    "alignment": Shape(median=450, spread=1.0, tail=0.12, exponent=0.35, longest=65_536),
    "chat": Shape(median=1_100, spread=0.45, longest=8_192),
}
LONG_TAILED = ("wikipedia", "web", "code", "books")
NAMES = ("wikipedia", *SHAPES)


def drawn(name: str, count: int, *, seed: int, longest: int) -> IntArray:
    """Give so many lengths, none above `longest`."""
    draw = np.random.default_rng(seed)
    found = np.zeros(0, dtype=np.int64)
    while len(found) < count:
        lengths = _articles(draw, 2 * count) if name == "wikipedia" else _shaped(draw, SHAPES[name], 2 * count)
        found = np.concatenate([found, lengths[(lengths >= 1) & (lengths <= longest)].astype(np.int64)])
    return found[:count]


def _articles(draw: np.random.Generator, count: int) -> FloatArray:
    edges = np.log(np.array([1.0, *(2.0**power for power in range(5, 23))]))
    share = np.array(ARTICLES) / sum(ARTICLES)
    place = draw.choice(len(share), count, p=share)
    return np.asarray(np.exp(edges[place] + (edges[place + 1] - edges[place]) * draw.random(count)))


def _shaped(draw: np.random.Generator, shape: Shape, count: int) -> FloatArray:
    body = shape.median * np.exp(shape.spread * draw.normal(size=count))
    least = (shape.from_length / shape.longest) ** shape.exponent
    tail = shape.from_length * (1 - draw.random(count) * (1 - least)) ** (-1 / shape.exponent)
    return np.clip(np.where(draw.random(count) < shape.tail, tail, body), 16, shape.longest)
