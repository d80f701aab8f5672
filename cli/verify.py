"""`meshwright verify`: whether a plan holds together, recomputed without the planner's own code."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from meshwright.catalog.errors import InputError
from meshwright.cli.arguments import file_path
from meshwright.cli.extras import require_torch

if TYPE_CHECKING:
    from meshwright.planner import Plan
    from meshwright.planner.memory_oracle import Comparison


def verify_command(
    file: Annotated[Path, typer.Argument(help="A plan file.", parser=file_path)],
    *,
    devices: Annotated[
        int | None, typer.Option("--devices", help="The number of devices that the plan is to run on.", min=1)
    ] = None,
    oracle: Annotated[
        Literal["torch"] | None,
        typer.Option("--with", help="Hold its memory against PyTorch's own tracker, too (about a minute)."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check the invariants of a plan, and simulate its step: exit 0 if all hold, 2 if one is broken."""
    from meshwright.cli.console import output_console, print_json
    from meshwright.cli.render.oracle import oracle_document, render_oracle
    from meshwright.cli.render.verifications import render_verification, verification_document
    from meshwright.planner.memory_oracle import Comparison, require_agreement
    from meshwright.planner.mixed.plan_file import is_mixed_plan, read_mixed_plan
    from meshwright.planner.plan_file import read_plan
    from meshwright.planner.verification import require_verified, verify
    from meshwright.planner.verification.mixed import verify_mixed

    comparisons: tuple[Comparison, ...] = ()
    if is_mixed_plan(file):
        if oracle:
            raise InputError("isn't for plans of mixed clusters", path="--with", hint="leave out --with")
        checks, sound = verify_mixed(read_mixed_plan(file), devices=devices), False
    else:
        plan = read_plan(file)
        checks = verify(plan, devices=devices)
        sound = not any(check.failures for check in checks)
        if oracle and sound:
            comparisons = _tracked(plan, str(file))
    if json:
        memory = {"memory": oracle_document(comparisons)} if oracle and sound else {}
        print_json(verification_document(checks) | memory)
    else:
        render_verification(output_console(), checks)
        render_oracle(output_console(), comparisons)
    require_verified(checks, file=str(file))
    require_agreement(comparisons)


def _tracked(plan: "Plan", file: str) -> tuple["Comparison", ...]:
    """Run ranks of the first stage, of the last and of the fullest on PyTorch's fake tensors."""
    from meshwright.planner.memory_oracle import Comparison, expectations, oracle_workload

    workload = oracle_workload(plan, file=file)
    require_torch("--with torch")
    from meshwright.runtime.oracle import held_at_peaks

    stages = expectations(plan, workload)
    fullest = max(stages, key=lambda each: each.expected.total)
    chosen = [each for each in stages if each in (stages[0], stages[-1], fullest)]
    tracked = held_at_peaks([(workload, each.rank) for each in chosen])
    return tuple(Comparison(expectation=each, tracked=held) for each, held in zip(chosen, tracked, strict=True))
