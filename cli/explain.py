"""`meshwright explain`: why a plan is as it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshwright.cli.arguments import OverlayFiles, file_path

if TYPE_CHECKING:
    from meshwright.planner import Plan


def explain_command(
    file: Annotated[Path, typer.Argument(help="A plan file.", parser=file_path)],
    *,
    why_not: Annotated[
        list[str] | None,
        typer.Option(
            help="Set the best layout with this value, tensor_parallel=4, beside the plan; repeat it to combine.",
            metavar="FIELD=VALUE",
        ),
    ] = None,
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
    if why_not:
        _answer(plan, why_not, json=json)
        return
    explanation = explain_plan(plan)
    if json:
        print_json(explanation_document(explanation))
    else:
        render_explanation(output_console(), explanation)


def _answer(plan: "Plan", fix: list[str], *, json: bool) -> None:
    from meshwright.catalog.document import validate
    from meshwright.cli.console import busy, output_console, print_json
    from meshwright.cli.render.explanations import render_why_not, why_not_document
    from meshwright.planner.layout.limit_words import limits_of
    from meshwright.planner.layout.limits import Limits
    from meshwright.planner.why_not import why_not

    limits = validate(Limits, limits_of(fix=fix, option="--why-not"), file="", path="why_not")
    with busy("searching the layouts"):
        answer = why_not(plan, limits)
    if json:
        print_json(why_not_document(answer))
    else:
        render_why_not(output_console(), answer)
