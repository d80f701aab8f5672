"""`meshwright import`: a launch configuration that exists already, as a plan."""

from pathlib import Path
from typing import Annotated

import typer

from meshwright.cli.arguments import OverlayFiles, file_path, output_file
from meshwright.cli.outputs import require_apart


def import_command(  # noqa: PLR0913 - one argument an option
    file: Annotated[
        Path, typer.Argument(help="Arguments, a recipe, a module or a document of the launcher.", parser=file_path)
    ],
    *,
    target: Annotated[str, typer.Option(help="Whose file it is: megatron, torchtitan, ...", metavar="LAUNCHER")],
    cluster: Annotated[str, typer.Option(help="Where it runs: a catalog name or a cluster file; dgx-h100:64.")],
    model: Annotated[str | None, typer.Option(help="The model, where the file doesn't tell it.")] = None,
    global_batch: Annotated[int | None, typer.Option(help="Sequences of a step, where the file doesn't tell.")] = None,
    sequence_length: Annotated[
        int | None, typer.Option(help="Tokens of a sequence, where the file doesn't tell.")
    ] = None,
    micro_batch: Annotated[int | None, typer.Option(help="Sequences of a micro-batch, where the file can't.")] = None,
    recompute: Annotated[
        str | None, typer.Option(help="none, selective or full, where the file can't.", metavar="WHAT")
    ] = None,
    stack: Annotated[str | None, typer.Option(help="Training software; by default the launcher's.")] = None,
    memory_headroom: Annotated[float, typer.Option(help="Share of device memory to leave free.")] = 0.0,
    improve: Annotated[
        bool, typer.Option("--improve/--no-improve", help="Search for a faster layout on the same launcher.")
    ] = True,
    overlay: OverlayFiles = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write the plan to this file.", parser=output_file, metavar="FILE"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Read what is run today into a plan, predict it, and say how much faster it could be."""
    from meshwright.cli.console import busy, output_console, print_json, print_warning
    from meshwright.cli.render.imports import import_document, render_improvement
    from meshwright.cli.render.plans import render_plan, warnings
    from meshwright.planner import write_plan
    from meshwright.planner.importing import import_plan, improved

    require_apart(output, (file, *(overlay or ())), names=(model, cluster))
    found = import_plan(
        file,
        target,
        cluster=cluster,
        model=model,
        global_batch=global_batch,
        sequence_length=sequence_length,
        micro_batch=micro_batch,
        recompute=recompute,
        stack=stack,
        memory_headroom=memory_headroom,
        overlays=overlay or (),
    )
    for setting in found.unmodelled:
        print_warning(f"{file} sets {setting}, which plans don't hold: the prediction is for a run without it")
    for warning in warnings(found.plan):
        print_warning(warning)
    best = None
    if improve:
        with busy("looking for a faster layout"):
            best = improved(found.plan, target)
    if output is not None:
        write_plan(found.plan, output)
    if json:
        print_json(import_document(found, best))
        return
    render_plan(output_console(), found.plan, seconds=None, file=output, searched=False)
    if best is not None:
        render_improvement(output_console(), found.plan, best)
