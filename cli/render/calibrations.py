"""What a calibration moved, and how far off it is, as JSON and as tables."""

import math
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.text import Text

from meshwright.catalog.residuals_entry import ResidualsEntry
from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.text import printable
from meshwright.cli.render.units import shown_error, shown_share
from meshwright.planner.calibration.calibrate import Calibration, Moved, SourceErrors
from meshwright.planner.calibration.overlay_document import written_figure


def calibration_document(result: Calibration) -> dict[str, Any]:
    """Give the JSON form; figures in base units, errors and standard errors as fractions."""
    return {
        "device": result.device,
        "moved": [
            {
                "constant": moved.constant.name,
                "before": moved.before,
                "after": moved.after,
                "standard_error": moved.standard_error,
                "told": moved.told,
            }
            for moved in result.moved
        ],
        "untold": list(result.untold),
        "sources": [
            {
                "source": source.label,
                "rows": source.rows,
                "before": source.before,
                "after": source.after,
                "left_out": source.left_out,
                "left_out_at_once": source.without,
            }
            for source in result.sources
        ],
        "residuals": [each.model_dump(mode="json") for each in result.residuals],
        "notes": list(result.notes),
        "overlay": result.overlay.model_dump(mode="json"),
    }


def render_calibration(console: Console, result: Calibration, *, file: Path | None) -> None:
    """Print what moved, what that does to the errors of each source, and what wasn't used."""
    _render_moved(console, result.moved)
    if result.untold:
        told = f"{len(result.untold)} other constants stay: the files tell nothing of them (--json names them)."
        console.print(Text(told))
    _render_errors(console, result.sources)
    if result.left_out_is_no_nearer:
        console.print(
            Text("Left-out rows are no nearer than by the catalog: there is too little here to improve on it.")
        )
    for each in result.residuals:
        console.print(Text(_residuals(each)))
    for note in result.notes:
        console.print(Text(printable(note)))
    if file is not None:
        console.print(Text(f"written to {printable(str(file))}"))


def _residuals(each: ResidualsEntry) -> str:
    rows = f"{each.rows} left-out {each.precision} step{'s' if each.rows > 1 else ''} of {each.model} models"
    return (
        f"{rows} are off by a factor of {math.exp(each.spread):.3f}, from which intervals under the overlay are made."
    )


def _render_moved(console: Console, moved: Iterable[Moved]) -> None:
    table = plain_table("Constants", ["constant"], ["before", "after", "moved", "std. error", "told"])
    for each in moved:
        figure = each.constant.figure
        add_row(
            table,
            each.constant.name,
            written_figure(figure, each.before),
            written_figure(figure, each.after),
            shown_error(each.after / each.before - 1),
            shown_share(each.standard_error),
            f"{each.told * 100:.0f} %",
        )
    console.print(table)


def _render_errors(console: Console, sources: tuple[SourceErrors, ...]) -> None:
    table = plain_table("Mean |error|", ["source"], ["rows", "before", "after", "left out"])
    table.add_column("")
    for source in sources:
        add_row(
            table,
            Path(source.label).name,
            source.rows,
            shown_share(source.before),
            shown_share(source.after),
            "" if source.left_out is None else shown_share(source.left_out),
            source.without or "alone",
        )
    if len(sources) > 1:
        left_out = [source.left_out for source in sources if source.left_out is not None]
        add_row(
            table,
            "mean over sources",
            sum(source.rows for source in sources),
            shown_share(fmean(source.before for source in sources)),
            shown_share(fmean(source.after for source in sources)),
            shown_share(fmean(left_out)) if len(left_out) == len(sources) else "",
            "",
        )
    console.print(table)
