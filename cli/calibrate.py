"""`meshwright calibrate`: the constants of a device, fitted to what was measured on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshwright.catalog.errors import InputError
from meshwright.catalog.precision import Precision
from meshwright.cli.arguments import OverlayFiles, file_path, one_of, output_file, require_distinct
from meshwright.cli.outputs import require_apart

if TYPE_CHECKING:
    from meshwright.planner.calibration.sources import Asked, Source

# As planner/accuracy/case.py and planner/calibration/timing.py have them, whose imports `--help` needn't wait for.
TRUSTS = ("high", "medium", "low")
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")


def calibrate_command(  # noqa: PLR0913 - one argument an option
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Measured cases (YAML), output of nccl-tests, rccl-tests or hccl_test, timed products (CSV), "
            "training logs.",
            parser=file_path,
        ),
    ] = None,
    *,
    device: Annotated[str, typer.Option(help="The device: its constants are fitted, other devices' rows left out.")],
    cluster: Annotated[
        str | None, typer.Option(help="The cluster (name or file) of logs; by default the device's reference cluster.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write the overlay to this file.", parser=output_file, metavar="FILE"),
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Time this machine's devices with PyTorch too.")] = False,
    trust: Annotated[
        str,
        typer.Option(help="Least trust of cases that tell.", parser=one_of("trust", TRUSTS), metavar="|".join(TRUSTS)),
    ] = "medium",
    overlay: OverlayFiles = None,
    job: Annotated[
        Path | None,
        typer.Option("--case", help="The job of training logs that don't tell it.", parser=file_path, metavar="FILE"),
    ] = None,
    collective: Annotated[
        str | None,
        typer.Option(
            help="The collective of logs that don't tell it.",
            parser=one_of("collective", COLLECTIVES),
            metavar="|".join(COLLECTIVES),
        ),
    ] = None,
    ranks: Annotated[int | None, typer.Option(min=2, help="The ranks of logs that don't list them.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="The nodes that those ranks are on.")] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="The format of products whose table lacks it.",
            parser=one_of("precision", Precision),
            metavar="|".join(Precision),
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Fit a device's constants to what was measured on it, and write them as an overlay."""
    from meshwright.cli.console import output_console, print_json, watcher
    from meshwright.cli.render.calibrations import calibration_document, render_calibration
    from meshwright.planner.accuracy.case import Trust
    from meshwright.planner.calibration.calibrate import calibrate
    from meshwright.planner.calibration.machine import machine_to_calibrate
    from meshwright.planner.calibration.overlay_document import overlay_yaml
    from meshwright.planner.calibration.sources import Asked, read_job, read_sources
    from meshwright.planner.calibration.timing import Collective
    from meshwright.planner.file_replacement import replace_file

    paths = files or []
    if not paths and not measure:
        raise InputError("no file is given", hint="name files of measurements, or time this machine with --measure")
    require_distinct(paths)
    require_apart(output, (*paths, *(overlay or ()), job), names=(cluster,))
    machine = machine_to_calibrate(device, cluster=cluster, overlays=overlay or ())
    asked = Asked(
        machine=machine,
        trust=Trust(trust),
        collective=Collective(collective) if collective else None,
        ranks=ranks,
        nodes=nodes,
        precision=Precision(precision) if precision else None,
        job=read_job(job) if job else None,
    )
    sources = [*read_sources(paths, asked), *([_measured(asked)] if measure else [])]
    result = calibrate(sources, asked, watch=watcher("fitting"))
    if output is not None:
        replace_file(output, overlay_yaml(result.overlay).encode("utf-8"))
    if json:
        print_json(calibration_document(result))
    else:
        render_calibration(output_console(), result, file=output)


def _measured(asked: "Asked") -> "Source":
    from meshwright.cli.console import watcher
    from meshwright.hardware.device import device_of
    from meshwright.planner.calibration.measure.measure import measure
    from meshwright.planner.calibration.measure.torch_bench import open_bench
    from meshwright.planner.calibration.sources import timed_source

    timings = measure(open_bench(asked.device), device_of(asked.machine.device), watch=watcher("measuring"))
    return timed_source(timings, label="this machine", asked=asked)
