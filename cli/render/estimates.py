"""Estimates, as JSON and as tables."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from meshwright.cli.render.tables import add_row, bars, plain_table
from meshwright.cli.render.text import printable
from meshwright.cli.render.units import shown_bytes, shown_figure, shown_seconds, shown_share, shown_span
from meshwright.planner.accuracy import Estimate, Predicted
from meshwright.planner.accuracy.case import MemoryKind
from meshwright.planner.uncertainty import Quantity


def estimate_document(item: Estimate) -> dict[str, Any]:
    """Give the JSON form of one estimate; what couldn't be predicted is null, beside the error."""
    return {
        "id": item.case.id,
        **(_no_prediction() if item.predicted is None else _prediction(item.predicted)),
        "error": item.error,
        "file": item.file,
    }


def _no_prediction() -> dict[str, Any]:
    return {"step_time_s": None, "peak_memory_bytes": None, "breakdown": None}


def _prediction(predicted: Predicted) -> dict[str, Any]:
    return {
        "step_time_s": predicted.step_time_s,
        "intervals": {str(quantity): asdict(interval) for quantity, interval in predicted.intervals.items()},
        "wider_because": list(predicted.wider_because),
        "peak_memory_bytes": {str(kind): value for kind, value in predicted.peak_memory_bytes.items()},
        "breakdown": dict(predicted.breakdown),
        "memory_breakdown": dict(predicted.memory_breakdown),
        "memory_limit_bytes": predicted.memory_limit_bytes,
        "fits": predicted.fits,
        "tokens_per_s": predicted.tokens_per_s,
        "mfu": predicted.mfu,
        "layout": asdict(predicted.layout),
        "assumptions": list(predicted.assumptions),
    }


def render_estimates(console: Console, estimates: Sequence[Estimate]) -> None:
    """Print a row an estimate; of a single one where its time and memory go, and what was assumed."""
    table = plain_table("", ["case"], ["step", "90 % sure", "tokens/s", "MFU", "memory", "of", "fits"])
    for item in estimates:
        if item.predicted is not None:
            add_row(
                table,
                item.case.id,
                shown_seconds(item.predicted.step_time_s),
                _shown_interval(item.predicted),
                shown_figure(item.predicted.tokens_per_s, ",.0f"),
                shown_share(item.predicted.mfu),
                shown_bytes(item.predicted.peak_memory_bytes[MemoryKind.NVIDIA_SMI]),
                shown_bytes(item.predicted.memory_limit_bytes),
                "yes" if item.predicted.fits else "NO",
            )
    if table.row_count:
        console.print(table)
    if len(estimates) == 1 and estimates[0].predicted is not None:
        _render_details(console, estimates[0].predicted)
    render_unpredicted(console, estimates)


def _shown_interval(predicted: Predicted) -> str:
    interval = predicted.intervals[Quantity.STEP_TIME]
    return shown_span(interval.low, interval.high, shown=shown_seconds)


def _render_details(console: Console, predicted: Predicted) -> None:
    bars(console, "Where the time goes", predicted.breakdown, shown=shown_seconds, total="step")
    bars(console, "Where the memory goes", predicted.memory_breakdown, shown=shown_bytes, total="allocated")
    for reason in predicted.wider_because:
        console.print(Text(printable(f"less sure, since {reason}")))
    for assumption in predicted.assumptions:
        console.print(Text(printable(f"assumed: {assumption}")))


def render_unpredicted(console: Console, estimates: Sequence[Estimate]) -> None:
    """Print each case that couldn't be predicted, with the reason."""
    table = plain_table("Not predicted", ["case", "why"])
    for item in estimates:
        if item.error is not None:
            add_row(table, item.case.id, item.error)
    if table.row_count:
        console.print(table)
