"""Ours: everything about a step, versioned."""

import json
from collections.abc import Sequence

from meshwright.planner.sequences.scattered import Scattered

VERSION = 1


def line(split: Scattered, lengths: Sequence[int]) -> str:
    """Give a step. How long it took to find is left out: the same lengths give the same bytes."""
    document = {name: value for name, value in split.document().items() if name != "seconds"}
    return json.dumps({"version": VERSION, "sequences": len(lengths), **document}, allow_nan=False)
