"""`meshwright accuracy`: predictions beside what was measured."""

from pathlib import Path
from typing import Annotated

import typer

from meshwright.cli.arguments import OverlayFiles, file_path, require_distinct
from meshwright.cli.outputs import require_apart


def accuracy_command(
    files: Annotated[
        list[Path],
        typer.Argument(help="Files of measured cases (catalog/measurements/*.yaml).", parser=file_path),
    ],
    *,
    overlay: OverlayFiles = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    rows: Annotated[bool, typer.Option("--rows", help="Show every row, not only the summaries.")] = False,
    worst: Annotated[
        int, typer.Option(min=0, help="Show so many rows that are furthest off, of each bar missed, and why.")
    ] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw predictions against measurements in this file (png, svg, pdf).",
            parser=file_path,
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Compare predictions with what was measured."""
    from meshwright.catalog.overlay_file import read_overlay
    from meshwright.cli.console import output_console, print_json, watcher
    from meshwright.cli.figure_file import require_drawable, write_figure
    from meshwright.cli.render.accuracies import render_accuracy
    from meshwright.cli.render.accuracy_documents import accuracy_document
    from meshwright.cli.render.worst_cases import render_worst
    from meshwright.planner.accuracy import accuracy, estimate
    from meshwright.planner.accuracy.left_out import left_out_estimates
    from meshwright.planner.accuracy.worst import worst_rows

    require_distinct(files)
    if plot is not None:
        require_drawable(plot)
        require_apart(plot, (*files, *(overlay or ())))
    overlays = [read_overlay(path) for path in overlay or ()]
    estimates = estimate(files, watch=watcher("predicting"), overlays=overlays)
    # What was fitted without a source would hide what an overlay says: the two can't be compared.
    without = None if overlays else left_out_estimates(estimates, watch=watcher("leaving each source out"))
    result = accuracy(estimates, left_out=without)
    if plot is not None:
        write_figure(result.rows, plot)
    furthest = worst_rows(result.bars, result.rows, worst) if worst else {}
    if json:
        print_json(accuracy_document(result, furthest))
        return
    console = output_console()
    render_accuracy(console, result, rows=rows)
    if worst:
        missed = [verdict for verdict in result.out_of_memory if not verdict.foretold_out_of_memory]
        render_worst(console, furthest, missed)
