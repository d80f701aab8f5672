"""Passes of micro-batches through a model's chunks, and the orders in which stages run them."""

from typing import NamedTuple


class Pass(NamedTuple):
    """A forward pass "F", a backward pass "B" or weight gradients "W" of a micro-batch in one of the model's chunks.

    Where no pass of an order is a "W", weight gradients are part of the backward passes.
    """

    kind: str
    batch: int
    chunk: int


Work = tuple[Pass, ...]
"""Passes that a stage runs as one: all that wait for any of them wait for the last."""

Orders = list[list[Work]]
"""What each stage runs, one after another."""


def alone(*order: tuple[str, int, int]) -> list[Work]:
    """Give the passes of kind, micro-batch and chunk, each run by itself."""
    return [(Pass(*what),) for what in order]


def feeds(what: Pass, last: int) -> Pass | None:
    """Give the pass that must have ended, wherever it ran, before this one begins.

    A forward pass waits for that of the chunk before, a backward pass for that of the chunk behind, or, in the `last`
    chunk, for the forward pass there; weight gradients for the backward pass of their chunk.
    """
    if what.kind == "F":
        return Pass("F", what.batch, what.chunk - 1) if what.chunk else None
    if what.kind == "B" and what.chunk < last:
        return Pass("B", what.batch, what.chunk + 1)
    return Pass("F" if what.kind == "B" else "B", what.batch, what.chunk)
