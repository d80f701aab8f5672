"""`meshwright estimate`: predictions of given layouts."""

from pathlib import Path
from typing import Annotated

import typer

from meshwright.cli.arguments import OverlayFiles, file_path


def estimate_command(
    files: Annotated[
        list[Path],
        typer.Argument(help="Files of cases (catalog/measurements/README.md says how).", parser=file_path),
    ],
    *,
    overlay: OverlayFiles = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Predict the step time and memory of given layouts."""
    from meshwright.catalog.overlay_file import read_overlay
    from meshwright.cli.console import output_console, print_json, watcher
    from meshwright.cli.render.estimates import estimate_document, render_estimates
    from meshwright.planner.accuracy import estimate

    overlays = [read_overlay(path) for path in overlay or ()]
    estimates = estimate(files, watch=watcher("predicting"), overlays=overlays)
    if json:
        print_json([estimate_document(item) for item in estimates])
    else:
        render_estimates(output_console(), estimates)
    failures = [item.failure.within(item.place) for item in estimates if item.failure is not None]
    if len(failures) == len(estimates):
        raise failures[0]
