"""`meshwright show`: a plan file as tables."""

from pathlib import Path
from typing import Annotated

import typer

from meshwright.cli.arguments import OverlayFiles, file_path


def show_command(
    file: Annotated[Path, typer.Argument(help="A plan file.", parser=file_path)],
    *,
    overlay: OverlayFiles = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show a plan; under overlays, what its layouts come to, without searching again."""
    from meshwright.cli.console import output_console, print_json
    from meshwright.cli.render.plans import plan_document, render_plan
    from meshwright.planner import load_plan

    plan = load_plan(file)
    if overlay:
        from meshwright.planner.repredict import repredict

        plan = repredict(plan, overlay)
    if json:
        document = plan_document(plan, seconds=None)
        print_json(document | {"search": None} if overlay else document)
    else:
        render_plan(output_console(), plan, seconds=None, file=None, searched=not overlay)
