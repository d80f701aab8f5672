"""A step's sequences, as the solver sees them."""

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Self

import numpy as np

from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.sequences.group_costs import GroupCosts

MOST_SEQUENCES = 1_000_000
LONGEST = 2**40


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Sequences, and what each takes.

    tokens, work_s: of each [sequences]. load_s: what it adds to a group of each degree by the first piece
    [degrees, sequences]; alone_s: what a group takes that has only it, infinite where its memory doesn't hold it.
    """

    tokens: IntArray
    work_s: FloatArray
    load_s: FloatArray
    alone_s: FloatArray

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, run: slice | IntArray) -> Self:
        """Give the batch of some of its sequences."""
        return replace(
            self,
            tokens=self.tokens[run],
            work_s=self.work_s[run],
            load_s=self.load_s[:, run],
            alone_s=self.alone_s[:, run],
        )

    def of_degrees(self, count: int) -> Self:
        """Give the batch for groups of the first so many degrees alone."""
        return replace(self, load_s=self.load_s[:count], alone_s=self.alone_s[:count])


def lengths_of(lengths: object) -> IntArray:
    """Give lengths in tokens as an array [sequences]. Raises InputError where they can't be lengths."""
    try:
        given = np.asarray(lengths)
    except ValueError:
        raise InputError("must be one list of whole numbers", path="lengths") from None
    if given.ndim != 1:
        raise InputError(f"must be one list of whole numbers, not {given.ndim} dimensions", path="lengths")
    if not len(given):
        raise InputError("the batch is empty", path="lengths", hint="a step needs at least one sequence")
    if len(given) > MOST_SEQUENCES:
        raise InputError(f"{len(given):,} sequences; at most {MOST_SEQUENCES:,} are split at once", path="lengths")
    if given.dtype.kind == "O" and all(type(each) in (int, float) for each in given):
        _refuse_beyond_64_bits(given.tolist())
    if given.dtype.kind not in "iuf":
        raise InputError("must be whole numbers", path="lengths")
    if np.ma.is_masked(lengths):
        raise InputError("some are masked", path="lengths", hint="leave out what isn't of the batch")
    if given.dtype.kind == "f":
        given = given.astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(given) & (given == np.floor(given)) & (given >= 1) & (given <= LONGEST)))
    if len(wrong):
        at = int(wrong[0])
        raise InputError(f"{_said(given[at])} is not a length: {_asked(float(given[at]))}", path=f"lengths.{at}")
    return given.astype(np.int64)


def _refuse_beyond_64_bits(lengths: list[int | float]) -> None:
    """Raise InputError about the first wrong one of numbers of which numpy has no type for one."""
    for at, length in enumerate(lengths):
        if not 1 <= length <= LONGEST:
            told = f"{Decimal(length).normalize():.6g}"
            raise InputError(f"{told} is not a length: {_asked(length)}", path=f"lengths.{at}")


def _said(value: np.generic) -> str:
    return f"{float(value):g}" if abs(float(value)) > LONGEST or isinstance(value, np.floating) else str(value)


def _asked(value: float) -> str:
    if value > LONGEST:
        return f"at most {LONGEST:,} tokens"
    return "a whole number of tokens from 1 on"


def batch_of(costs: GroupCosts, lengths: object) -> Batch:
    """Give the batch of some lengths. Raises InputError where one is wrong, or longer than all memory together."""
    tokens = lengths_of(lengths)
    require_room(costs, tokens)
    work_s = costs.work_s(tokens)
    first = costs.pieces[:, 0, :]
    load_s = first[:, :1] * work_s + first[:, 1:2] * tokens
    alone_s = load_s + first[:, 2:]
    for piece in range(1, costs.pieces.shape[1]):
        rows = costs.pieces[:, piece, :]
        alone_s = np.maximum(alone_s, rows[:, :1] * work_s + rows[:, 1:2] * tokens + rows[:, 2:])
    alone_s = np.where(tokens <= costs.most_tokens[:, np.newaxis], alone_s, np.inf)
    return Batch(tokens=tokens, work_s=work_s, load_s=load_s, alone_s=alone_s)


def require_room(costs: GroupCosts, tokens: IntArray) -> None:
    """Raise InputError where no group's memory holds a sequence, with the devices that it would need."""
    longest = int(np.argmax(tokens))
    most = int(costs.most_tokens.max())
    if tokens[longest] <= most:
        return
    a_rank = int((costs.most_tokens // costs.degrees).max())
    needed = -(-int(tokens[longest]) // a_rank) * costs.devices_a_rank
    widest = int(costs.degrees[np.argmax(costs.most_tokens)]) * costs.devices_a_rank
    raise InputError(
        f"sequence {longest} has {tokens[longest]:,} tokens; it would need {needed:,} devices of "
        f"{a_rank // costs.devices_a_rank:,} tokens each, and the largest group has {widest:,}",
        path=f"lengths.{longest}",
        hint="more devices, more recomputation, offloading, or a method of context parallelism for larger groups",
    )
