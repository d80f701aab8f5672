"""`meshwright check`: whether a plan still holds."""

from pathlib import Path
from typing import Annotated

import typer

from meshwright.catalog.errors import InputError, PlanDrift
from meshwright.cli.arguments import OverlayFiles, file_path


def check_command(
    file: Annotated[Path, typer.Argument(help="A plan file.", parser=file_path)],
    *,
    update: Annotated[bool, typer.Option("--update", help="Write the new plan over the old one.")] = False,
    overlay: OverlayFiles = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Plan again from the plan's own inputs: exit 0 if unchanged, 6 if the layout or a prediction moved."""
    differences = _update(file, overlay) if update else _compare(file, overlay)
    _report(file, differences, update=update, json=json)
    if differences and not update:
        raise PlanDrift(
            f"{file}: planning again gives a different plan",
            differences=() if json else differences,
            hint="`meshwright check --update` writes the new plan over the old one",
        )


def _compare(file: Path, overlay: list[Path] | None) -> tuple[str, ...]:
    from meshwright.cli.console import busy
    from meshwright.planner import check_plan
    from meshwright.planner.mixed.plan_file import is_mixed_plan
    from meshwright.planner.plan_file import read_plan

    if is_mixed_plan(file):
        return _mixed(file, overlay, update=False)
    old = read_plan(file)
    with busy("planning again"):
        return check_plan(old, overlay)


def _update(file: Path, overlay: list[Path] | None) -> tuple[str, ...]:
    from meshwright.cli.console import busy
    from meshwright.planner import write_plan
    from meshwright.planner.check import differences, replan
    from meshwright.planner.mixed.plan_file import is_mixed_plan
    from meshwright.planner.plan_file import read_plan

    if is_mixed_plan(file):
        return _mixed(file, overlay, update=True)
    old = read_plan(file)
    with busy("planning again"):
        new = replan(old, overlay)
    write_plan(new, file)
    return differences(old, new)


def _mixed(file: Path, overlay: list[Path] | None, *, update: bool) -> tuple[str, ...]:
    from meshwright.cli.console import busy
    from meshwright.planner.mixed.check import check_mixed, mixed_differences
    from meshwright.planner.mixed.plan_file import read_mixed_plan, write_mixed_plan
    from meshwright.planner.mixed.planning import plan_of_mixed

    if overlay:
        raise InputError("isn't for plans of mixed clusters", path="--overlay", hint="leave out --overlay")
    old = read_mixed_plan(file)
    with busy("planning again"):
        if not update:
            return check_mixed(old)
        new = plan_of_mixed(old.inputs).plan
    write_mixed_plan(new, file)
    return mixed_differences(old, new)


def _report(file: Path, differences: tuple[str, ...], *, update: bool, json: bool) -> None:
    from meshwright.cli.console import output_console, print_json
    from meshwright.cli.render.text import printable

    if json:
        print_json({"unchanged": not differences, "differences": list(differences), "updated": update})
        return
    console, name = output_console(), printable(str(file))
    if not differences:
        console.print(f"{name}: unchanged", markup=False)
    elif update:
        console.print(f"{name}: updated", markup=False)
        for difference in differences:
            console.print(f"  {printable(difference)}", markup=False)
