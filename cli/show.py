"""`meshwright show`: a plan file as tables."""

from pathlib import Path
from typing import Annotated

import typer

from meshwright.catalog.errors import InputError
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
    from meshwright.planner.mixed.plan_file import is_mixed_plan

    if is_mixed_plan(file):
        _show_mixed(file, overlay=bool(overlay), json=json)
        return
    plan = load_plan(file)
    if overlay:
        from meshwright.planner.repredict import repredict

        plan = repredict(plan, overlay)
    if json:
        document = plan_document(plan, seconds=None)
        print_json(document | {"search": None} if overlay else document)
    else:
        render_plan(output_console(), plan, seconds=None, file=None, searched=not overlay)


def _show_mixed(file: Path, *, overlay: bool, json: bool) -> None:
    from meshwright.cli.console import output_console, print_json
    from meshwright.cli.render.mixed_plans import mixed_document, render_mixed
    from meshwright.planner.mixed.plan_file import read_mixed_plan

    if overlay:
        raise InputError("isn't for plans of mixed clusters", path="--overlay", hint="leave out --overlay")
    plan = read_mixed_plan(file)
    if json:
        print_json(mixed_document(plan, seconds=None))
    else:
        render_mixed(output_console(), plan, seconds=None, file=None)
