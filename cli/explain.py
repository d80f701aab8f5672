"""`meshwright explain`: why a plan is as it is."""

from pathlib import Path
from typing import Annotated

import typer

from meshwright.cli.arguments import file_path


def explain_command(
    file: Annotated[Path, typer.Argument(help="A plan file.", parser=file_path)],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Explain why this layout: where time and memory go, what binds, what the alternatives lose."""
    from meshwright.cli.console import output_console, print_json
    from meshwright.cli.render.explanations import explanation_document, render_explanation
    from meshwright.planner import load_plan
    from meshwright.planner.explain import explain_plan

    explanation = explain_plan(load_plan(file))
    if json:
        print_json(explanation_document(explanation))
    else:
        render_explanation(output_console(), explanation)
