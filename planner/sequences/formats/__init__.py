"""What data loaders read: a step's split as a line of JSON, for each of them."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from meshwright.catalog.errors import InputError
from meshwright.planner.sequences.formats import flexsp, megatron, ours, verl
from meshwright.planner.sequences.mode import Mode
from meshwright.planner.sequences.scattered import Scattered


class Format(StrEnum):
    """Whose data loader is to read it."""

    OURS = "ours"
    MEGATRON_CORE = "megatron-core"
    FLEXSP = "flexsp"
    VERL = "verl"


# Whose ranks wait for one another after each micro-batch: a split without barriers wouldn't take the time it says.
WITH_BARRIERS = frozenset({Format.MEGATRON_CORE, Format.FLEXSP})

Writer = Callable[[Scattered, Sequence[int]], str]

WRITERS: Mapping[Format, Writer] = {
    Format.OURS: ours.line,
    Format.MEGATRON_CORE: megatron.line,
    Format.FLEXSP: flexsp.line,
    Format.VERL: verl.line,
}


def steps_text(kind: Format, steps: Sequence[tuple[Scattered, Sequence[int]]]) -> str:
    """Give the file of some steps, of each the split and the lengths: one a line.

    Raises InputError where the format can't say a split.
    """
    if kind in WITH_BARRIERS and any(split.mode is Mode.FREE for split, _ in steps):
        raise InputError(
            f"ranks of {kind} wait for one another after each micro-batch, and this split has none wait",
            path="--format",
            hint="--mode lockstep",
        )
    return "".join(WRITERS[kind](split, lengths) + "\n" for split, lengths in steps)
