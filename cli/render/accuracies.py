"""Predictions beside measurements, as JSON and as tables."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from meshwright.cli.render.estimates import render_unpredicted
from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.units import shown_bytes, shown_error, shown_seconds, shown_share
from meshwright.planner.accuracy import Accuracy
from meshwright.planner.accuracy.accuracy import MemoryVerdict
from meshwright.planner.accuracy.rows import Quantity, Row
from meshwright.planner.accuracy.summary import DIMENSIONS, Summary


def accuracy_document(result: Accuracy) -> dict[str, Any]:
    """Give the JSON form; errors are fractions: 0.1 is a tenth too high."""
    return {
        "cases": result.cases,
        "unmeasured": result.unmeasured,
        "headlines": [
            {
                "selection": headline.selection,
                "quantity": headline.quantity,
                "count": headline.count,
                "files": headline.files,
                "mean_over_rows": headline.mean_over_rows,
                "mean_over_files": headline.mean_over_files,
            }
            for headline in result.headlines
        ],
        "summaries": {
            dimension: [_summary_document(summary) for summary in result.summaries if summary.dimension == dimension]
            for dimension in DIMENSIONS
        },
        "out_of_memory": [_verdict_document(verdict) for verdict in result.out_of_memory],
        "wrongly_refused": [_verdict_document(verdict) for verdict in result.wrongly_refused],
        "unpredicted": [{"id": item.case.id, "file": item.file, "error": item.error} for item in result.unpredicted],
        "rows": [_row_document(row) for row in result.rows],
    }


def _summary_document(summary: Summary) -> dict[str, Any]:
    return {
        "value": summary.value,
        "quantity": summary.quantity,
        "count": summary.statistics.count,
        "mean_absolute_error": summary.statistics.mean_absolute,
        "median_absolute_error": summary.statistics.median_absolute,
        "bias": summary.statistics.bias,
        "within_10_percent": summary.statistics.within_tenth,
    }


def _verdict_document(verdict: MemoryVerdict) -> dict[str, Any]:
    return {
        "id": verdict.estimate.case.id,
        "file": verdict.estimate.file,
        "foretold_out_of_memory": verdict.foretold_out_of_memory,
        "was_out_of_memory": verdict.was_out_of_memory,
        "predicted_bytes": verdict.predicted_bytes,
        "limit_bytes": verdict.limit_bytes,
    }


def _row_document(row: Row) -> dict[str, Any]:
    return {
        "id": row.case.id,
        "file": row.file,
        "device": row.case.cluster.device,
        "trust": row.trust,
        "precision": row.case.precision,
        "quantity": row.quantity,
        "measured": row.measured,
        "predicted": row.predicted,
        "error": row.error,
    }


def render_accuracy(console: Console, result: Accuracy, *, rows: bool) -> None:
    """Print the summaries, what was foretold of memory, what couldn't be predicted, headlines; rows if asked."""
    if rows:
        _render_rows(console, result.rows)
        _render_verdicts(console, result)
    for dimension in ("file", "device", "trust", "precision"):
        _render_summaries(console, dimension, [item for item in result.summaries if item.dimension == dimension])
    render_unpredicted(console, result.unpredicted)
    _render_headlines(console, result)


def _render_rows(console: Console, rows: Iterable[Row]) -> None:
    table = plain_table("Rows", ["case", "quantity"], ["measured", "predicted", "error"])
    for row in rows:
        shown = shown_seconds if row.quantity is Quantity.STEP_TIME else shown_bytes
        add_row(table, row.case.id, row.quantity, shown(row.measured), shown(row.predicted), shown_error(row.error))
    console.print(table)


def _render_summaries(console: Console, dimension: str, summaries: Iterable[Summary]) -> None:
    table = plain_table(
        f"By {dimension}", [dimension, "quantity"], ["rows", "mean |error|", "median", "bias", "within 10 %"]
    )
    for summary in summaries:
        statistics = summary.statistics
        add_row(
            table,
            Path(summary.value).name,
            summary.quantity,
            statistics.count,
            shown_share(statistics.mean_absolute),
            shown_share(statistics.median_absolute),
            shown_error(statistics.bias),
            shown_share(statistics.within_tenth),
        )
    if table.row_count:
        console.print(table)


def _render_verdicts(console: Console, result: Accuracy) -> None:
    table = plain_table("Did it fit?", ["case", "foretold", "measured"], ["predicted", "of"])
    for verdict in (*result.out_of_memory, *result.wrongly_refused):
        add_row(
            table,
            verdict.estimate.case.id,
            "out of memory" if verdict.foretold_out_of_memory else "fits",
            "out of memory" if verdict.was_out_of_memory else "ran",
            shown_bytes(verdict.predicted_bytes),
            shown_bytes(verdict.limit_bytes),
        )
    if table.row_count:
        console.print(table)


def _render_headlines(console: Console, result: Accuracy) -> None:
    table = plain_table("Mean |error|", ["rows of", "quantity"], ["rows", "files", "mean over rows", "mean over files"])
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
