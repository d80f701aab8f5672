"""The rows that are furthest off, each with what may explain it."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from meshwright.cli.render.text import printable
from meshwright.cli.render.units import shown_bytes, shown_error, shown_seconds, shown_share
from meshwright.planner.accuracy import Case, Predicted
from meshwright.planner.accuracy.bars import source_name
from meshwright.planner.accuracy.rows import Row
from meshwright.planner.accuracy.verdict import MemoryVerdict
from meshwright.planner.uncertainty import Quantity

PARTS_SHOWN = 6
LEAST_SHOWN = 0.001
INDENT = 4


def render_worst(console: Console, worst: Mapping[str, Sequence[Row]], missed: Sequence[MemoryVerdict]) -> None:
    """Print rows by the bar that they keep from being met, then cases not foretold to run out of memory."""
    for name, rows in worst.items():
        console.print(Text(f"Furthest off: {name}", style="bold"))
        for row in rows:
            _render_block(console, row.case.id, _row_lines(row))
        console.print()
    if missed:
        console.print(Text("Ran out of memory, and weren't foretold to", style="bold"))
        for verdict in missed:
            _render_block(console, verdict.case.id, _verdict_lines(verdict))
        console.print()


def _render_block(console: Console, name: str, lines: Iterator[str]) -> None:
    console.print(Text(printable(name), style="cyan"))
    for line in lines:
        console.print(Padding(Text(printable(line)), (0, 0, 0, INDENT)))


def _row_lines(row: Row) -> Iterator[str]:
    timed = row.quantity is Quantity.STEP_TIME
    shown = shown_seconds if timed else shown_bytes
    told = f"{shown(row.measured)} measured, {shown(row.predicted)} predicted"
    yield f"{row.quantity} {shown_error(row.error)}: {told}; {source_name(row.file)}, trust {row.trust}"
    yield from _reasons(row.case, row.prediction, timed=timed)


def _verdict_lines(verdict: MemoryVerdict) -> Iterator[str]:
    told = f"{shown_bytes(verdict.predicted_bytes)} predicted of {shown_bytes(verdict.limit_bytes)}"
    yield f"{told}; {source_name(verdict.file)}, trust {verdict.case.trust or 'not told'}"
    yield from _reasons(verdict.case, verdict.prediction, timed=False)


def _reasons(case: Case, prediction: Predicted, *, timed: bool) -> Iterator[str]:
    parts: Mapping[str, float] = prediction.breakdown if timed else prediction.memory_breakdown
    yield f"goes to: {_largest(parts)}"
    for label, texts in (
        ("assumed", prediction.assumptions),
        ("unknown", case.unknown),
        ("inferred", case.inferred),
        ("note", (case.note,) if case.note else ()),
    ):
        if texts:
            yield f"{label}: {'; '.join(texts)}"


def _largest(parts: Mapping[str, float]) -> str:
    whole = sum(parts.values())
    shares = {name.replace("_", " "): value / whole for name, value in parts.items() if value > LEAST_SHOWN * whole}
    largest = sorted(shares.items(), key=lambda part: -part[1])[:PARTS_SHOWN]
    return ", ".join(f"{name} {shown_share(share)}" for name, share in largest)
