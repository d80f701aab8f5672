"""`meshwright show`: a plan file as tables."""

from pathlib import Path
from typing import Annotated

import typer

from meshwright.cli.arguments import file_path


def show_command(
    file: Annotated[Path, typer.Argument(help="A plan file.", parser=file_path)],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show a plan."""
    from meshwright.cli.console import output_console, print_json
    from meshwright.cli.render.plans import plan_document, render_plan
    from meshwright.planner import load_plan

    plan = load_plan(file)
    if json:
        print_json(plan_document(plan, seconds=None))
    else:
        render_plan(output_console(), plan, seconds=None, file=None)
