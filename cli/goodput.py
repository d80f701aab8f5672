"""`meshwright goodput`: how often to save a plan's state, where to, and how much of the time is then of use."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshwright.catalog.errors import InputError
from meshwright.cli.arguments import OverlayFiles, duration, failure_time, file_path, of_option, pause, rate

if TYPE_CHECKING:
    from meshwright.planner import Plan

MOST_RUNS = 100_000
LONGEST_RUN_S = 10 * 365.25 * 86_400.0


def goodput_command(  # noqa: PLR0913 - one argument an option
    file: Annotated[Path, typer.Argument(help="A plan file.", parser=file_path)],
    *,
    mtbf: Annotated[
        str, typer.Option(help='Mean time between failures of a device or a node: "3 years/device".', metavar="TIME")
    ],
    storage: Annotated[
        float | None,
        typer.Option(
            help='What all devices together write: "100 GB/s"; by default 122 MB/s a device.',
            parser=of_option("--storage", rate),
            metavar="RATE",
        ),
    ] = None,
    host: Annotated[
        float | None,
        typer.Option(
            help="What a device copies to its host; by default what its link does.",
            parser=of_option("--host", rate),
            metavar="RATE",
        ),
    ] = None,
    restart: Annotated[
        float | None,
        typer.Option(
            help="From a failure until state is read again: 5min.",
            parser=of_option("--restart", pause),
            metavar="TIME",
            show_default="5min",
        ),
    ] = None,
    soft_share: Annotated[
        float, typer.Option(help="Share of failures after which the memory of all hosts is as it was.")
    ] = 0.22,
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration",
            help="Of each simulated run: 30d.",
            parser=of_option("--duration", duration),
            metavar="TIME",
            show_default="30d",
        ),
    ] = None,
    runs: Annotated[int, typer.Option(help="How many runs are simulated.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the simulation.")] = 0,
    overlay: OverlayFiles = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Find the best interval and level of checkpoints, and the share of the time that is then of use."""
    from meshwright.cli.console import busy, output_console, print_json
    from meshwright.cli.render.goodputs import goodput_document, render_goodput
    from meshwright.planner import load_plan
    from meshwright.planner.goodput import Failures, goodput
    from meshwright.planner.goodput.machine import RESTART_S
    from meshwright.planner.repredict import repredict

    length_s = 30 * 86_400.0 if duration is None else duration
    if not 2 <= runs <= MOST_RUNS:
        raise InputError(f"is {runs}; it is from 2 to {MOST_RUNS:,}", path="--runs")
    if not 2 <= length_s <= LONGEST_RUN_S:
        raise InputError(f"is {length_s:g} s; it is from 2 s to 10 years, {LONGEST_RUN_S:g} s", path="--duration")
    if seed < 0:
        raise InputError(f"is {seed}; it is a whole number from 0 up", path="--seed")
    plan = load_plan(file)
    if overlay:
        plan = repredict(plan, overlay)
    failures = Failures(
        device_mtbf_s=_device_mtbf_s(plan, mtbf),
        soft_share=soft_share,
        restart_s=RESTART_S if restart is None else restart,
    )
    with busy("simulating"):
        found = goodput(
            plan,
            failures,
            host_bytes_per_s=host,
            storage_bytes_per_s=storage,
            duration_s=length_s,
            runs=runs,
            seed=seed,
        )
    if json:
        print_json(goodput_document(found))
    else:
        render_goodput(output_console(), found)


def _device_mtbf_s(plan: "Plan", text: str) -> float:
    seconds, unit = of_option("--mtbf", failure_time)(text)
    return seconds if unit == "device" else seconds * plan.inputs.cluster.entry.devices_per_node
