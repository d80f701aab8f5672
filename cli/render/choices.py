"""The front of time, memory and devices, as JSON and as a table."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.units import shown_bytes, shown_seconds
from meshwright.planner.layout.description import describe
from meshwright.planner.pareto import Choice

# The table leaves out layouts that are this close to the one above in both.
CLOSE = 0.1


def choices_document(choices: Sequence[Choice]) -> list[dict[str, Any]]:
    """Give the JSON form of a front."""
    return [asdict(choice) for choice in choices]


def render_choices(console: Console, choices: Sequence[Choice]) -> None:
    """Print a front, of layouts that are close in time and memory only the fastest; a word where nothing is on it."""
    if not choices:
        console.print("Time, memory or devices: no layout fits without offloading, so there is nothing to choose from.")
        return
    shown = list(_apart(choices))
    title = f"Time, memory or devices: {len(shown)} of {len(choices)} evenly cut layouts that no other beats in all"
    table = plain_table(title, ["layout"], ["devices", "step", "memory"])
    for choice in shown:
        row = (f"{choice.devices:,}", shown_seconds(choice.step_time_s), shown_bytes(choice.peak_bytes))
        add_row(table, describe(choice.layout), *row)
    console.print(table)


def _apart(choices: Sequence[Choice]) -> Iterator[Choice]:
    last: Choice | None = None
    for choice in choices:
        if last is None or last.devices != choice.devices or _is_apart(last, choice):
            last = choice
            yield choice


def _is_apart(one: Choice, other: Choice) -> bool:
    return other.step_time_s > (1 + CLOSE) * one.step_time_s or other.peak_bytes < (1 - CLOSE) * one.peak_bytes
