"""What checks of a plan found, as JSON and as a table."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.text import printable
from meshwright.planner.verification import Check, Outcome

STYLES = {Outcome.OK: "green", Outcome.FAILED: "bold red", Outcome.NOT_MADE: "yellow"}


def verification_document(checks: Sequence[Check]) -> dict[str, Any]:
    """Give the JSON form of checks."""
    found = [
        {
            "name": check.name,
            "what": check.what,
            "outcome": str(check.outcome),
            "failures": [asdict(failure) for failure in check.failures],
        }
        for check in checks
    ]
    return {"holds": all(check.outcome is Outcome.OK for check in checks), "checks": found}


def render_verification(console: Console, checks: Sequence[Check]) -> None:
    """Print a row a check, and below the table each field that is wrong."""
    table = plain_table("", ["check", "result", "what was checked"])
    for check in checks:
        add_row(table, check.name, Text(check.outcome.value, style=STYLES[check.outcome]), check.what)
    console.print(table)
    for check in checks:
        for failure in check.failures:
            console.print(Text(printable(f"{check.name}: {failure.path}: {failure.message}")))
