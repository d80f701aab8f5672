"""What a plan says of memory beside what PyTorch's tracker finds, as JSON and as tables."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.units import shown_error
from meshwright.planner.memory_oracle import Comparison

GIB = 2**30


def oracle_document(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Give the JSON form of comparisons."""
    return [
        {
            "stage": each.expectation.stage,
            "rank": each.expectation.rank,
            "planned_bytes": each.expectation.planned.by_class(),
            "expected_bytes": each.expectation.expected.by_class(),
            "tracked_bytes": each.tracked.by_class(),
            "reasons": list(each.expectation.reasons),
            "plan_error": each.plain_error,
            "error": each.error,
        }
        for each in comparisons
    ]


def render_oracle(console: Console, comparisons: Sequence[Comparison]) -> None:
    """Print a table a rank, with a row a class, and below it what the known differences come from."""
    for each in comparisons:
        console.print(_table(each))
        console.print(Text(f"  known differences: {'; '.join(each.expectation.reasons)}"))


def _table(comparison: Comparison) -> Table:
    table = plain_table(
        f"Memory of rank {comparison.expectation.rank}, stage {comparison.expectation.stage}, in GiB",
        ["class"],
        ["plan", "known differences", "expected", "PyTorch", "off by"],
    )
    planned, expected = comparison.expectation.planned.by_class(), comparison.expectation.expected.by_class()
    for name, found in comparison.tracked.by_class().items():
        _row(table, name, planned[name], expected[name], found)
    planned_total, expected_total = comparison.expectation.planned.total, comparison.expectation.expected.total
    _row(table, "in all", planned_total, expected_total, comparison.tracked.total)
    return table


def _row(table: Table, name: str, planned: float, expected: float, found: float) -> None:
    off = shown_error(expected / found - 1) if found else ""
    amounts = (f"{planned / GIB:,.2f}", f"{(expected - planned) / GIB:+,.2f}", f"{expected / GIB:,.2f}")
    add_row(table, name, *amounts, f"{found / GIB:,.2f}", off)
