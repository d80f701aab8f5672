"""`meshwright reshard`: which rank sends which slice of which state to which, between two plans."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshwright.catalog.errors import InputError
from meshwright.cli.arguments import OverlayFiles, file_path, of_option, rate
from meshwright.cli.outputs import require_apart

if TYPE_CHECKING:
    from meshwright.planner import Plan

CHECKPOINT = "checkpoint"


def reshard_command(
    old: Annotated[str, typer.Argument(help="The plan file by which the state lies, or the word checkpoint.")],
    new: Annotated[str, typer.Argument(help="The plan file by which it is to lie, or the word checkpoint.")],
    *,
    between_steps: Annotated[
        bool,
        typer.Option("--between-steps", help="Between two steps: sums of gradients are 0, and stay where they are."),
    ] = False,
    storage: Annotated[
        float | None,
        typer.Option(
            help='What all devices together read or write of a checkpoint: "100 GB/s".',
            parser=of_option("--storage", rate),
            metavar="RATE",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write all moves to this JSON file.", parser=file_path, metavar="FILE"),
    ] = None,
    overlay: OverlayFiles = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say what moves from one plan's state to another's, to or from a checkpoint, over which tier, and how long."""
    from meshwright.cli.console import busy, output_console, print_json
    from meshwright.cli.render.reshards import render_reshard, reshard_document
    from meshwright.planner.file_replacement import replace_file, replaceable_file
    from meshwright.planner.repredict import repredict
    from meshwright.planner.resharding import moves_document, moves_json, reshard

    if output is not None:
        replaceable_file(output)
        require_apart(output, (*(file_path(name) for name in (old, new) if name != CHECKPOINT), *(overlay or ())))
    plans = [_plan(old), _plan(new)]
    with busy("solving what moves"):
        try:
            laid = [repredict(plan, overlay) if plan and overlay else plan for plan in plans]
            found = reshard(*laid, gradients=not between_steps, storage_bytes_per_s=storage)
        except InputError as error:
            raise error.within(new) from None
        names = [CHECKPOINT if plan is None else plan.inputs.digest for plan in plans]
        if output is not None:
            document = moves_document(found, old=names[0], new=names[1])
            replace_file(output, moves_json(document).encode("utf-8"))
    if json:
        print_json(reshard_document(found))
    else:
        render_reshard(output_console(), found, file=output)


def _plan(name: str) -> "Plan | None":
    from meshwright.planner import load_plan

    return None if name == CHECKPOINT else load_plan(file_path(name))
