"""`torchrun --nproc-per-node N -m meshwright.cli.run plan.yaml`: train under a plan's layout with PyTorch, and compare.

Each process runs this; the first one prints.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from meshwright.catalog.errors import InputError, MeshwrightError
from meshwright.cli.arguments import file_path
from meshwright.cli.extras import require_torch

if TYPE_CHECKING:
    from meshwright.planner import Plan
    from meshwright.planner.ledger import Workload

STEPS_AT_LEAST = 3


def run_command(
    file: Annotated[Path, typer.Argument(help="A plan file.", parser=file_path)],
    *,
    model: Annotated[
        Literal["tiny", "plan"], typer.Option(help="A small model of the plan's kind, or the plan's own.")
    ] = "tiny",
    steps: Annotated[int, typer.Option(help="Steps to train; the last one is measured.")] = 5,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Format of activations.")] = "fp32",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train; by default on GPUs if there are any.")
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train under the layout of a plan, and set what PyTorch did beside what was to be expected."""
    from meshwright.planner import load_plan

    plan = load_plan(file)
    workload = _workload(plan, str(file), model=model, precision=precision)
    if steps < STEPS_AT_LEAST:
        raise InputError(
            f"{steps} are too few", path="--steps", hint=f"give {STEPS_AT_LEAST} or more: the first one sets up"
        )
    _require_processes(workload, str(file))
    require_torch("training")
    from meshwright.runtime.world import run_in_world

    report = run_in_world(workload, steps=steps, device=device, compare=model == "tiny")
    if report is None:
        return
    from meshwright.cli.console import output_console, print_json
    from meshwright.cli.render.runs import render_run, run_document

    if json:
        print_json(run_document(plan, report))
    else:
        render_run(output_console(), plan, report)
    report.require_agreement()


def _workload(plan: "Plan", file: str, *, model: str, precision: str) -> "Workload":
    from dataclasses import replace

    from meshwright.planner.emission.torch.obstacles import require_expressible
    from meshwright.planner.ledger.plan_workload import plan_workload
    from meshwright.planner.ledger.tiny import tiny_workload
    from meshwright.planner.ledger.workload import BF16_BYTES

    workload = plan_workload(plan)
    if model == "tiny":
        workload = tiny_workload(workload)
    if precision == "bf16":
        workload = replace(workload, element_bytes=BF16_BYTES)
    require_expressible(workload, file=file)
    return workload


def _require_processes(workload: "Workload", file: str) -> None:
    """Raise InputError where the world is of another size than the plan's."""
    needed, started = workload.layout.world_size, os.environ.get("WORLD_SIZE", "1")
    if started != str(needed):
        raise InputError(
            f"the plan is for {needed} processes, not {started}",
            file=file,
            path="mesh.devices",
            hint=f"torchrun --nproc-per-node {needed} -m meshwright.cli.run PLAN, or so many over all nodes",
        )


def main() -> None:
    """Run the command. The first process prints a MeshwrightError to standard error; all give its exit code."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(run_command)
    try:
        app(prog_name="meshwright.cli.run")
    except MeshwrightError as error:
        from meshwright.cli.console import print_error

        if os.environ.get("RANK", "0") == "0":
            print_error(error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
