"""`meshwright accuracy`: predictions beside what was measured."""

from pathlib import Path
from typing import Annotated

import typer

from meshwright.cli.arguments import file_path


def accuracy_command(
    files: Annotated[
        list[Path],
        typer.Argument(help="Files of measured cases (catalog/measurements/*.yaml).", parser=file_path),
    ],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    rows: Annotated[bool, typer.Option("--rows", help="Show every row, not only the summaries.")] = False,
) -> None:
    """Compare predictions with what was measured."""
    from meshwright.cli.console import output_console, print_json, watcher
    from meshwright.cli.render.accuracies import accuracy_document, render_accuracy
    from meshwright.planner.accuracy import accuracy, estimate

    result = accuracy(estimate(files, watch=watcher("predicting")))
    if json:
        print_json(accuracy_document(result))
    else:
        render_accuracy(output_console(), result, rows=rows)
