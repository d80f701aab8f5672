"""`meshwright replan`: the best plan for what is left of a cluster, and what has to move for it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshwright.catalog.errors import InputError
from meshwright.cli.arguments import OverlayFiles, file_path, of_option, rate
from meshwright.cli.outputs import require_apart

if TYPE_CHECKING:
    from meshwright.planner import Plan
    from meshwright.planner.change import Replanned


def replan_command(  # noqa: PLR0913 - one argument an option
    file: Annotated[Path, typer.Argument(help="The plan file that runs.", parser=file_path)],
    *,
    lose: Annotated[
        str | None, typer.Option(help="Nodes and devices that are lost, by number: node:3,gpu:17.", metavar="WHAT")
    ] = None,
    add: Annotated[str | None, typer.Option(help="So many nodes or devices more: node:2.", metavar="WHAT")] = None,
    devices: Annotated[
        int | None, typer.Option(help="How many devices there are to be; those left out still send what they hold.")
    ] = None,
    price_of_move: Annotated[
        float,
        typer.Option(help="Seconds of each step that a second of moving is worth: 1 / steps to the next change."),
    ] = 1e-3,
    storage: Annotated[
        float | None,
        typer.Option(
            help='What all devices together read of a checkpoint: "100 GB/s".',
            parser=of_option("--storage", rate),
            metavar="RATE",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the new plan.", parser=file_path, metavar="FILE")
    ] = None,
    moves: Annotated[
        Path | None, typer.Option(help="Write all moves to this JSON file.", parser=file_path, metavar="FILE")
    ] = None,
    overlay: OverlayFiles = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Plan for what is left, with the same global batch, weighing the step against the state that must move."""
    from meshwright.cli.console import busy, output_console, print_json
    from meshwright.cli.render.replans import render_replan, replan_document
    from meshwright.planner import load_plan, write_plan
    from meshwright.planner.change import replanned
    from meshwright.planner.change.left import change_of
    from meshwright.planner.file_replacement import replaceable_file
    from meshwright.planner.repredict import repredict_as_given

    if not 0 <= price_of_move <= 1e6:
        raise InputError(f"is {price_of_move}; it is from 0 to 1,000,000", path="--price-of-move")
    for wanted in (output, moves):
        require_apart(wanted, (file, *(overlay or ())))
    written = [replaceable_file(wanted) for wanted in (output, moves) if wanted is not None]
    if len(set(written)) < len(written):
        raise InputError("is the file of the new plan, -o", path="--moves", hint="give them two files")
    running = load_plan(file)
    old = repredict_as_given(running, overlay) if overlay else running
    change = change_of(old, lose=lose, add=add, devices=devices)
    with busy("planning for what is left"):
        found = replanned(old, change, price=price_of_move, storage_bytes_per_s=storage)
        if moves is not None:
            _write_moves(old, found, moves, storage=storage, digest=running.inputs.digest)
    if output is not None:
        write_plan(found.chosen.plan, output)
    if json:
        print_json(replan_document(old, found))
    else:
        render_replan(output_console(), old, found, files=[each for each in (output, moves) if each is not None])


def _write_moves(old: "Plan", found: "Replanned", file: Path, *, storage: float | None, digest: str) -> None:
    """Write the moves from the plan of that digest, which `old` is but for its predictions."""
    from meshwright.planner.change.replan import moved
    from meshwright.planner.file_replacement import replace_file
    from meshwright.planner.resharding import moves_document, moves_json

    new, seated = found.chosen.plan, found.chosen.seats
    solved = moved(old, new, found.left, seated, storage_bytes_per_s=storage)
    document = moves_document(solved, old=digest, new=new.inputs.digest)
    replace_file(file, moves_json(document | {"devices_of_new_ranks": seated.tolist()}).encode("utf-8"))
