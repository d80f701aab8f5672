"""What a group of ranks takes for the sequences that it is given.

A rank is what holds one copy of the model: `tensor_parallel` devices. A group of degree d shares its sequences over d
ranks. Of W seconds of attention on one rank and L tokens it takes

    T(d) = max over pieces of (a W + b L + c)        seconds: a, b and c are the degree's, of each piece

so that where nothing overlaps it is (a1 sum s^2 + a2 sum s) / d + communication + a fixed part, with W = a1 sum s^2.
Of what runs beside one another the longer counts, hence several pieces: a ring's messages or its attention, gathers of
ZeRO-3 or compute, the host or the device.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionWork:
    """Causal attention of some of a model's layers: seconds of a pair of a query and a key on one rank.

    window, chunk: how far back queries look, in tokens (costmodels/attention.py).
    """

    pair_s: float
    window: int | None = None
    chunk: int | None = None

    def seconds(self, lengths: IntArray) -> FloatArray:
        """Give the seconds on one rank of sequences of so many tokens."""
        tokens = lengths.astype(float)
        if self.chunk is not None:
            whole, rest = np.divmod(tokens, self.chunk)
            return np.asarray(self.pair_s * (whole * self.chunk**2 + rest**2) / 2.0)
        seen = tokens if self.window is None else np.minimum(tokens, self.window)
        return np.asarray(self.pair_s * seen * (tokens - seen / 2.0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupCosts:
    """Costs and limits of groups of each degree.

    ranks: in all; node_ranks: of a node, whose groups are aligned to it. devices_a_rank: what a rank is made of.
    degrees: ascending [degrees]. pieces: a, b and c of each [degrees, pieces, 3]; the first is the one that counts
    where messages hide. most_tokens: that a group's memory holds [degrees].
    attention: what W is the sum of.
    free_allowed: whether ranks may run on without waiting for one another after each micro-batch.
    """

    ranks: int
    node_ranks: int
    devices_a_rank: int = 1
    degrees: IntArray
    pieces: FloatArray
    most_tokens: IntArray
    attention: tuple[AttentionWork, ...]
    free_allowed: bool = True

    def __post_init__(self) -> None:
        if not (np.isfinite(self.pieces).all() and all(np.isfinite(kind.pair_s) for kind in self.attention)):
            raise InputError("a coefficient isn't a finite number", path="coefficients")
        grows = np.concatenate([self.pieces[..., :2].ravel(), self.pieces[:, 0, 2]])
        if (grows < 0).any() or any(kind.pair_s < 0 for kind in self.attention):
            raise InputError("a coefficient is negative", path="coefficients", hint="time never falls with work")
        if not len(self.degrees) or self.degrees[0] < 1 or self.degrees[-1] > self.ranks:
            raise InputError(f"degrees must be between 1 and the {self.ranks} ranks there are", path="degrees")
        if (np.diff(self.degrees) <= 0).any():
            raise InputError("must ascend", path="degrees")
        if (self.most_tokens < 1).any():
            raise InputError("a group's memory must hold a token", path="most_tokens")

    def work_s(self, lengths: IntArray) -> FloatArray:
        """Give the seconds of attention of each sequence on one rank."""
        return np.asarray(sum((kind.seconds(lengths) for kind in self.attention), np.zeros(len(lengths))))

    def group_s(self, degree: IntArray, work_s: FloatArray, tokens: FloatArray) -> FloatArray:
        """Give the seconds of groups, of each the index of its degree, its attention and its tokens."""
        rows = self.pieces[degree]
        return np.asarray(
            (rows[..., 0] * work_s[..., np.newaxis] + rows[..., 1] * tokens[..., np.newaxis] + rows[..., 2]).max(-1)
        )

    def sums_s(self, degree: IntArray, group: IntArray, work_s: FloatArray, tokens: IntArray) -> FloatArray:
        """Give the seconds of groups of these degrees [groups] from what their sequences take and have [sequences]."""
        return self.group_s(
            degree,
            np.bincount(group, work_s, len(degree)).astype(np.float64),
            np.bincount(group, tokens, len(degree)).astype(np.float64),
        )

    def of_degrees(self, count: int) -> Self:
        """Give the costs of the first so many degrees alone."""
        return replace(
            self, degrees=self.degrees[:count], pieces=self.pieces[:count], most_tokens=self.most_tokens[:count]
        )

    @property
    def fixed_s(self) -> FloatArray:
        """Give the fixed part of each degree's first piece, in seconds."""
        return self.pieces[:, 0, 2]


def uniform_costs(  # noqa: PLR0913 - one argument a coefficient
    *,
    ranks: int,
    node_ranks: int,
    tokens_a_rank: int,
    square_s: float,
    token_s: float,
    fixed_s: float = 0.0,
    inside_s: float = 0.0,
    outside_s: float = 0.0,
    degrees: IntArray | None = None,
) -> GroupCosts:
    """Give the costs of given coefficients: T(d) = (square_s sum s^2 + (token_s + message_s) sum s) / d + fixed_s.

    tokens_a_rank: that a rank's memory holds. inside_s, outside_s: message_s, the seconds of a rank's token's messages,
    of groups of more than one rank inside a node, and of those beyond it.

    Raises InputError where a coefficient is negative or no number.
    """
    if degrees is None:
        degrees = powers_of_two(ranks)
    message_s = np.where(degrees == 1, 0.0, np.where(degrees <= node_ranks, inside_s, outside_s))
    pieces = np.stack(
        [1.0 / degrees, (token_s + message_s) / degrees, np.full(len(degrees), fixed_s, dtype=float)], axis=-1
    )
    return GroupCosts(
        ranks=ranks,
        node_ranks=node_ranks,
        degrees=degrees,
        pieces=pieces[:, np.newaxis, :],
        most_tokens=tokens_a_rank * degrees,
        attention=(AttentionWork(pair_s=2.0 * square_s),),
    )


def powers_of_two(ranks: int) -> IntArray:
    """Give 1, 2, 4 ... up to the number of ranks."""
    return np.asarray(2 ** np.arange(int(ranks).bit_length()), dtype=np.int64)
