"""`meshwright explain`: why a plan is as it is."""

from pathlib import Path
from typing import Annotated

import typer

from meshwright.cli.arguments import OverlayFiles, file_path


def explain_command(
    file: Annotated[Path, typer.Argument(help="A plan file.", parser=file_path)],
    *,
    overlay: OverlayFiles = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Explain why this layout: where time and memory go, what binds, what the alternatives lose."""
    from meshwright.cli.console import output_console, print_json
    from meshwright.cli.render.explanations import explanation_document, render_explanation
    from meshwright.planner import load_plan
    from meshwright.planner.explain import explain_plan

    plan = load_plan(file)
    if overlay:
        from meshwright.planner.repredict import repredict

        plan = repredict(plan, overlay)
    explanation = explain_plan(plan)
    if json:
        print_json(explanation_document(explanation))
    else:
        render_explanation(output_console(), explanation)
