"""`meshwright offload`: what of a layout stays on the device, what moves, what is computed again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshwright.catalog.errors import InputError
from meshwright.catalog.precision import Precision
from meshwright.cli.arguments import OverlayFiles, file_path, one_of, output_file
from meshwright.cli.outputs import require_apart

if TYPE_CHECKING:
    from meshwright.catalog.cluster_entry import ClusterEntry
    from meshwright.planner.offload import OffloadPlan, UpdateRates
    from meshwright.planner.offload.rate_fit import RateFit
    from meshwright.planner.plan_schema import Inputs, Plan

# As planner/offload/forward_only.py and target.py have them, whose imports `--help` needn't wait for.
MODES = ("training", "zeroth-order", "inference")
TARGETS = ("free", "deepspeed", "deep-optimizer-states", "megatron", "torch")


def offload_command(  # noqa: PLR0913 - one argument an option
    model: Annotated[
        str | None, typer.Argument(help="A catalog name, a model file, or a config.json; that of --plan by default.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Argument(help="A catalog name or a cluster file; dgx-h100:8 is 8 devices of it.")
    ] = None,
    *,
    layout: Annotated[
        Path | None,
        typer.Option(help="A file of a layout's fields: data_parallel: 8.", parser=file_path, metavar="FILE"),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="A plan file, whose layout and job it is about.", parser=file_path, metavar="FILE"),
    ] = None,
    global_batch: Annotated[int | None, typer.Option(help="Sequences of one optimizer step; that of --plan.")] = None,
    sequence_length: Annotated[int | None, typer.Option(help="Tokens of a sequence; that of --plan.")] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Format of the matrix products.", parser=one_of("precision", Precision), metavar="|".join(Precision)
        ),
    ] = None,
    stack: Annotated[str | None, typer.Option(help="Training software; by default the device's usual one.")] = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(help='What a device may hold: "40 GiB"; by default all but 5 %.', metavar="BYTES"),
    ] = None,
    host_memory: Annotated[
        str | None, typer.Option(help='What a node\'s memory may hold: "1 TiB"; by default all.', metavar="BYTES")
    ] = None,
    nvme: Annotated[bool, typer.Option("--nvme", help="Let states go to the node's drives too.")] = False,
    target: Annotated[
        str,
        typer.Option(
            help="Only what this launcher can be told, with what that costs.",
            parser=one_of("target", TARGETS),
            metavar="|".join(TARGETS),
        ),
    ] = "free",
    mode: Annotated[
        str,
        typer.Option(
            help="What a step is; but for training nothing is kept, and parameters stream.",
            parser=one_of("mode", MODES),
            metavar="|".join(MODES),
        ),
    ] = "training",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Fit the host's rates to measured optimizer steps (docs/offload.md); alone, print them.",
            parser=file_path,
            metavar="FILE",
        ),
    ] = None,
    overlay: OverlayFiles = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write the plan with its offloading.", parser=output_file, metavar="FILE"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Decide for each layer and class of tensors what stays, what moves to the host and what is computed again."""
    if calibrate is not None and model is None and plan is None:
        _print_fits(calibrate, json=json)
        return
    from meshwright.cli.console import busy, output_console, print_json
    from meshwright.cli.render.offloads import offload_document, render_offload
    from meshwright.planner import load_plan
    from meshwright.planner.job_inputs import inputs_of
    from meshwright.planner.offload import offload_of
    from meshwright.planner.offload.layout_file import read_layout
    from meshwright.planner.replica_batches import require_equal_batches

    if (layout is None) == (plan is None):
        raise InputError("give one of --layout FILE and --plan FILE", path="--layout")
    if output is not None and mode != "training":
        raise InputError(f"a plan file is of training, not of {mode}", path="--output", hint="leave out one of them")
    require_apart(output, (layout, plan, calibrate, *(overlay or ())), names=(model, cluster))
    given = None if plan is None else load_plan(plan)
    if given is not None:
        require_equal_batches(given, what="`meshwright offload`")
    job = None if given is None else given.inputs.job
    inputs = inputs_of(
        _needed(model, None if given is None else given.inputs.model.entry, "MODEL"),
        _needed(cluster, None if given is None else _cluster_of(given), "CLUSTER"),
        stack=stack if stack is not None or given is None else given.inputs.stack.entry,
        overlays=overlay or (),
        global_batch=_needed(global_batch, job and job.global_batch, "--global-batch"),
        sequence_length=_needed(sequence_length, job and job.sequence_length, "--sequence-length"),
        precision=precision or (job.precision if job else Precision.BF16),
        objective="time",
        top=0,
        memory_headroom=job.memory_headroom if job else 0.05,
    )
    rates = None if calibrate is None else _one_machine(calibrate)
    with busy("splitting"):
        found = offload_of(
            inputs,
            read_layout(str(layout)) if given is None else given.layout.layout(),
            memory_budget=memory_budget,
            host_memory=host_memory,
            nvme=nvme,
            target=target,
            rates=rates,
            mode=mode,
        )
    if output is not None:
        _write(found, inputs, output)
    if json:
        print_json(offload_document(found))
        return
    render_offload(output_console(), found, file=output)


def _needed(value: object, planned: object, name: str) -> Any:  # noqa: ANN401 - of the kind that is asked for
    found = planned if value is None else value
    if found is None:
        raise InputError("is missing", path=name, hint="give it, or a plan with --plan")
    return found


def _cluster_of(plan: "Plan") -> "ClusterEntry":
    """Give a plan's cluster with its device."""
    return plan.inputs.cluster.entry.model_copy(update={"device": plan.inputs.device.entry})


def _write(found: "OffloadPlan", inputs: "Inputs", output: Path) -> None:
    from meshwright.planner import write_plan
    from meshwright.planner.offload.planned import plan_with_offload

    write_plan(plan_with_offload(inputs, found), output)


def _fits(file: Path) -> "tuple[RateFit, ...]":
    from meshwright.cli.console import busy
    from meshwright.planner.offload.rate_fit import fit_rates
    from meshwright.planner.offload.runs import read_runs

    with busy("fitting"):
        return fit_rates(read_runs(file))


def _one_machine(file: Path) -> "UpdateRates":
    """Fit the rates of the one machine that a file is of. Raises InputError where it is of several."""
    fits = _fits(file)
    if len(fits) > 1:
        names = ", ".join(fit.machine for fit in fits)
        raise InputError(f"is of {len(fits)} machines: {names}", file=str(file), hint="keep the rows of one")
    return fits[0].rates


def _print_fits(file: Path, *, json: bool) -> None:
    from meshwright.cli.console import output_console, print_json
    from meshwright.cli.render.offloads import fits_document, render_fits

    fits = _fits(file)
    if json:
        print_json(fits_document(fits))
    else:
        render_fits(output_console(), fits)
