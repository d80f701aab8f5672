"""`meshwright verify`: whether a plan holds together, recomputed without the planner's own code."""

from pathlib import Path
from typing import Annotated

import typer

from meshwright.cli.arguments import file_path


def verify_command(
    file: Annotated[Path, typer.Argument(help="A plan file.", parser=file_path)],
    *,
    devices: Annotated[
        int | None, typer.Option("--devices", help="The number of devices that the plan is to run on.", min=1)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check the invariants of a plan, and simulate its step: exit 0 if all hold, 2 if one is broken."""
    from meshwright.cli.console import output_console, print_json
    from meshwright.cli.render.verifications import render_verification, verification_document
    from meshwright.planner.plan_file import read_plan
    from meshwright.planner.verification import require_verified, verify

    checks = verify(read_plan(file), devices=devices)
    if json:
        print_json(verification_document(checks))
    else:
        render_verification(output_console(), checks)
    require_verified(checks, file=str(file))
