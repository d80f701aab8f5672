"""`meshwright emit`: a plan as the files that a launcher runs, or a placement of experts as those of an engine."""

from pathlib import Path
from typing import Annotated

import typer

from meshwright.cli.arguments import file_path
from meshwright.cli.outputs import require_apart

# As planner/experts/serving.py has them, whose imports `--help` needn't wait for.
SERVING = ("sglang", "vllm")


def emit_command(
    file: Annotated[Path, typer.Argument(help="A plan file; for sglang and vllm a placement.json.", parser=file_path)],
    *,
    target: Annotated[
        str,
        typer.Option(
            help="megatron, megatron-0.12, torchtitan, deepspeed, accelerate, megatron-bridge, nanotron or torch; "
            "sglang or vllm for a placement of experts.",
            metavar="LAUNCHER",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The folder to make; by default the target's name.",
            parser=file_path,
            metavar="FOLDER",
        ),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="How many devices it is to run on: refused where the plan is for another number.")
    ] = None,
    relax: Annotated[
        bool, typer.Option("--relax", help="Emit the nearest plan that the launcher can run, and what that costs.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder if it is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write the files that run a plan on a launcher, rank by rank: arguments, environment, launch scripts."""
    from meshwright.catalog.names import match_name
    from meshwright.cli.console import output_console, print_json, print_warning
    from meshwright.cli.render.emissions import emission_document, relaxation_lines, render_emission
    from meshwright.planner import emit, load_plan
    from meshwright.planner.emission import write_emission
    from meshwright.planner.emission.target import EmitTarget, emit_target
    from meshwright.planner.folder_replacement import require_free
    from meshwright.planner.plan_file import require_devices
    from meshwright.planner.targets import Target

    planned_for = [str(one) for one in Target]
    named = match_name(target, (*map(str, EmitTarget), *SERVING, *planned_for), kind="launcher to emit for")
    if named in SERVING:
        _emit_placement(file, named, output or Path(named), force=force, json=json)
        return
    known = emit_target(named)
    folder = output or Path(known)
    require_free(folder, force=force)
    require_apart(folder, (file,))
    plan = load_plan(file)
    require_devices(plan, devices, file=str(file))
    emission = emit(plan, known, relax=relax)
    paths = write_emission(emission, folder, force=force)
    for line in relaxation_lines(emission):
        print_warning(line)
    if json:
        print_json(emission_document(emission, paths))
        return
    render_emission(output_console(), emission, paths)


def _emit_placement(file: Path, target: str, folder: Path, *, force: bool, json: bool) -> None:
    from meshwright.cli.console import output_console, print_json
    from meshwright.cli.render.emissions import render_serving
    from meshwright.planner.experts.placement_file import load_placement_file
    from meshwright.planner.experts.serving import VERSIONS, ServingTarget, serving_files
    from meshwright.planner.folder_replacement import require_free, write_folder

    require_free(folder, force=force)
    require_apart(folder, (file,))
    known = ServingTarget(target)
    paths = write_folder(serving_files(load_placement_file(file), known), folder, force=force)
    if json:
        print_json({"target": target, "consumer": VERSIONS[known], "files": [str(path) for path in paths]})
        return
    render_serving(output_console(), VERSIONS[known], paths)
