"""Predictions beside measurements, as tables."""

from collections.abc import Iterable, Sequence

from rich.console import Console

from meshwright.cli.render.accuracy_bars import render_bars, render_rankings
from meshwright.cli.render.estimates import render_unpredicted
from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.text import printable
from meshwright.cli.render.units import shown_bytes, shown_error, shown_seconds, shown_share
from meshwright.planner.accuracy import Accuracy
from meshwright.planner.accuracy.bars import source_name
from meshwright.planner.accuracy.rows import Row
from meshwright.planner.accuracy.spread import LEVEL
from meshwright.planner.accuracy.summary import Summary
from meshwright.planner.uncertainty import Quantity


def render_accuracy(console: Console, result: Accuracy, *, rows: bool) -> None:
    """Print bars, rankings, summaries, what couldn't be predicted, headlines and what was foretold; rows if asked."""
    render_bars(console, result.bars)
    if result.interval_coverage is not None:
        held = shown_share(result.interval_coverage)
        console.print(f"Intervals of {LEVEL:.0%}, made without a row's source, hold {held} of step times.\n")
    render_rankings(console, result.rankings)
    if rows:
        _render_rows(console, result.rows)
        _render_verdicts(console, result)
    for dimension in ("file", "device", "trust", "precision"):
        _render_summaries(console, dimension, [item for item in result.summaries if item.dimension == dimension])
    render_unpredicted(console, result.unpredicted)
    if result.repeated:
        first = printable(result.repeated[0].place)
        console.print(f"Given more than once, and counted once: {len(result.repeated)} such as {first}\n", markup=False)
    _render_headlines(console, result)


def _render_rows(console: Console, rows: Iterable[Row]) -> None:
    table = plain_table("Rows", ["case", "quantity"], ["measured", "predicted", "error"])
    for row in rows:
        shown = shown_seconds if row.quantity is Quantity.STEP_TIME else shown_bytes
        add_row(table, row.case.id, row.quantity, shown(row.measured), shown(row.predicted), shown_error(row.error))
    console.print(table)


def _render_summaries(console: Console, dimension: str, summaries: Sequence[Summary]) -> None:
    left_out = any(summary.left_out is not None for summary in summaries)
    table = plain_table(
        f"By {dimension}, |error|",
        [dimension, "quantity"],
        ["rows", "mean", "median", "bias", "within 10 %", *(["left out"] if left_out else [])],
    )
    for summary in summaries:
        statistics = summary.statistics
        add_row(
            table,
            source_name(summary.value) if dimension == "file" else summary.value,
            summary.quantity,
            statistics.count,
            shown_share(statistics.mean_absolute),
            shown_share(statistics.median_absolute),
            shown_error(statistics.bias),
            shown_share(statistics.within_tenth),
            *([_shown_left_out(summary)] if left_out else []),
        )
    if table.row_count:
        console.print(table)


def _shown_left_out(summary: Summary) -> str:
    return "" if summary.left_out is None else shown_share(summary.left_out)


def _render_verdicts(console: Console, result: Accuracy) -> None:
    table = plain_table("Did it fit?", ["case", "foretold", "measured"], ["predicted", "of"])
    for verdict in (*result.out_of_memory, *result.wrongly_refused):
        add_row(
            table,
            verdict.case.id,
            "out of memory" if verdict.foretold_out_of_memory else "fits",
            "out of memory" if verdict.was_out_of_memory else "ran",
            shown_bytes(verdict.predicted_bytes),
            shown_bytes(verdict.limit_bytes),
        )
    if table.row_count:
        console.print(table)


def _render_headlines(console: Console, result: Accuracy) -> None:
    table = plain_table("Mean |error|", ["rows of", "quantity"], ["rows", "files", "over rows", "over files"])
    for headline in result.headlines:
        add_row(
            table,
            headline.selection,
            headline.quantity,
            headline.count,
            headline.files,
            shown_share(headline.mean_over_rows),
            shown_share(headline.mean_over_files),
        )
    if table.row_count:
        console.print(table)
    foretold = sum(verdict.foretold_out_of_memory for verdict in result.out_of_memory)
    if result.out_of_memory:
        console.print(f"{foretold} of the {len(result.out_of_memory)} cases that ran out of memory were foretold to.")
    if result.wrongly_refused:
        console.print(f"{len(result.wrongly_refused)} cases that ran were foretold not to fit (--rows lists them).")
    compared = result.cases - len(result.unpredicted) - result.unmeasured
    console.print(f"{compared} of {result.cases} cases compared, {len(result.unpredicted)} not predicted.")
