"""Tables and bars, the same for every command."""

from collections.abc import Callable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from meshwright.cli.render.text import printable

BAR_WIDTH = 28


def plain_table(title: str, left: Sequence[str], right: Sequence[str] = ()) -> Table:
    """Make an empty table with text columns on the left and numbers on the right."""
    table = Table(
        title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, expand=False
    )
    for header in left:
        table.add_column(header, overflow="fold")
    for header in right:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def add_row(table: Table, *cells: object) -> None:
    """Add a row of plain text: brackets in it are brackets, not markup."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in cells))


def bars(
    console: Console, title: str, parts: Mapping[str, float], *, shown: Callable[[float], str], total: str
) -> None:
    """Print parts of a whole, largest first, each with its share and a bar; parts that are nothing are left out."""
    whole = sum(parts.values())
    table = plain_table(title, ["part"], ["amount", "share"])
    table.add_column("", no_wrap=True)
    block = "█" if console.encoding.startswith("utf") else "#"
    for name, value in sorted(parts.items(), key=lambda part: -part[1]):
        share = value / whole if whole else 0.0
        if value:
            bar = Text(block * max(round(share * BAR_WIDTH), 0), style="cyan")
            add_row(table, name.replace("_", " "), shown(value), f"{share * 100:.1f} %", bar)
    add_row(table, total, shown(whole), "", "")
    console.print(table)
