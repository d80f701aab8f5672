"""`meshwright plan` on a mixed cluster: islands joined by links."""

from pathlib import Path
from typing import Any

from meshwright.catalog.errors import InputError


def plan_mixed(
    model: str,
    cluster: str,
    *,
    asked: dict[str, Any],
    refused: dict[str, bool],
    output: Path | None,
    json: bool,
) -> None:
    """Plan, print, and write where that is asked.

    asked: arguments of `mixed_inputs`. refused: options that are of no use here, and whether they are given.

    Raises InputError.
    """
    from meshwright.cli.console import busy, output_console, print_json
    from meshwright.cli.render.mixed_plans import mixed_document, render_mixed
    from meshwright.planner.mixed.plan_file import write_mixed_plan
    from meshwright.planner.mixed.planning import mixed_inputs, plan_of_mixed

    for option, given in refused.items():
        if given:
            raise InputError("isn't for mixed clusters", path=option, hint=f"leave out {option}")
    inputs = mixed_inputs(model, cluster, **asked)
    with busy("searching the shapes"):
        made = plan_of_mixed(inputs)
    if output is not None:
        write_mixed_plan(made.plan, output)
    if json:
        print_json(mixed_document(made.plan, seconds=made.search_s))
        return
    render_mixed(output_console(), made.plan, seconds=made.search_s, file=output)
