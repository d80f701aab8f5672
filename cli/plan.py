"""`meshwright plan`: the best layout for a model on a cluster."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshwright.catalog.errors import InputError
from meshwright.catalog.precision import Precision
from meshwright.cli.arguments import OverlayFiles, duration, file_path, of_option, one_of, output_file, token_count
from meshwright.cli.outputs import require_apart

if TYPE_CHECKING:
    from meshwright.catalog.model_entry import ModelEntry
    from meshwright.planner import Plan, TimedPlan
    from meshwright.planner.layout.question import Watch
    from meshwright.planner.plan_schema import Inputs

# As planner/layout/objective.py and planner/targets.py have them, whose imports `--help` needn't wait for.
OBJECTIVES = ("time", "cost", "energy", "memory", "devices", "robust")
OFFLOADS = ("auto", "never")
TARGETS = ("megatron-core", "torchtitan", "deepspeed", "fsdp2", "mindspeed")


def plan_command(  # noqa: PLR0913 - one argument an option
    model: Annotated[str, typer.Argument(help="A catalog name, a model file, or a Hugging Face config.json.")],
    cluster: Annotated[
        str, typer.Argument(help="A catalog name or a cluster file; dgx-h100:64 is 64 devices of it; A+B both.")
    ],
    *,
    global_batch: Annotated[int, typer.Option(help="Sequences of one optimizer step.")],
    sequence_length: Annotated[int, typer.Option(help="Tokens of a sequence.")],
    precision: Annotated[
        str,
        typer.Option(
            help="Format of the matrix products.", parser=one_of("precision", Precision), metavar="|".join(Precision)
        ),
    ] = "bf16",
    objective: Annotated[
        str,
        typer.Option(
            help="Least step time, price or energy of a token, or memory; fewest devices for a time; or the least "
            "upper end of the interval of the step time.",
            parser=one_of("objective", OBJECTIVES),
            metavar="|".join(OBJECTIVES),
        ),
    ] = "time",
    tokens: Annotated[
        int | None,
        typer.Option(help="Say what training on so many tokens comes to: 300B, 15T.", parser=token_count, metavar="N"),
    ] = None,
    slower_by: Annotated[
        float | None, typer.Option(help="For the least memory: slower than the fastest by this share at most (0.1).")
    ] = None,
    target_time: Annotated[
        float | None,
        typer.Option(
            help="For the fewest devices: what all tokens may take (30d), or a step (10s).",
            parser=of_option("--target-time", duration),
            metavar="TIME",
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            help="Stop searching after so long (2 s), with the best so far.",
            parser=of_option("--time-limit", duration),
            metavar="TIME",
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="Alternatives to show.")] = 5,
    pareto: Annotated[bool, typer.Option("--pareto", help="Show the front of time, memory and devices too.")] = False,
    memory_headroom: Annotated[float, typer.Option(help="Share of device memory to leave free.")] = 0.05,
    fix: Annotated[
        list[str] | None,
        typer.Option(help="Only layouts with this value: tensor_parallel=8, schedule=1f1b, ...", metavar="FIELD=VALUE"),
    ] = None,
    forbid: Annotated[
        list[str] | None, typer.Option(help="No layouts with this value: schedule=gpipe, ...", metavar="FIELD=VALUE")
    ] = None,
    most: Annotated[
        list[str] | None,
        typer.Option("--max", help="No layouts with more: pipeline_parallel=8, ...", metavar="FIELD=VALUE"),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Only what this launcher runs, with what that costs; its software in place of --stack.",
            parser=one_of("target", TARGETS),
            metavar="|".join(TARGETS),
        ),
    ] = None,
    offload: Annotated[
        str | None,
        typer.Option(
            help="Offloaded layouts too (auto), or never; by default where nothing fits without.",
            parser=one_of("way to offload", OFFLOADS),
            metavar="|".join(OFFLOADS),
        ),
    ] = None,
    routing: Annotated[
        Path | None,
        typer.Option(
            help="Measured routing, as `meshwright experts` reads it: experts are as loaded as placed by it.",
            parser=file_path,
            metavar="FILE",
        ),
    ] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(
            help='What joins clusters given as A+B: "100 Gb/s, 20 ms", or "A-B: ..." for two of several.',
            metavar="LINK",
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="On islands, a way that changes the mathematics: diloco, noloco, co2, compress, skip-stages; "
            "diloco:50 for 50 local steps.",
            metavar="WAY",
        ),
    ] = None,
    stack: Annotated[str | None, typer.Option(help="Training software; by default the device's usual one.")] = None,
    overlay: OverlayFiles = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write the plan to this file.", parser=output_file, metavar="FILE"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Find the layout that trains MODEL on CLUSTER best."""
    from meshwright.catalog.mixed_lookup import is_mixed
    from meshwright.cli.console import output_console, print_json, print_warning, searching
    from meshwright.cli.plan_mixed import plan_mixed
    from meshwright.cli.render.choices import choices_document, render_choices
    from meshwright.cli.render.plans import plan_document, render_plan, warnings
    from meshwright.cli.render.progress import shown_progress
    from meshwright.planner import inputs_of, write_plan
    from meshwright.planner.layout.limit_words import limits_of
    from meshwright.planner.pareto import pareto_of

    if pareto:
        _require_whole_front(time_limit, offload)
    require_apart(output, (routing, *(overlay or ())), names=(model, cluster))
    limits = limits_of(fix=fix or (), forbid=forbid or (), most=most or ())
    if is_mixed(cluster):
        plan_mixed(
            model,
            cluster,
            asked={
                "links": link or [],
                "allow": allow or [],
                "stack": stack,
                "global_batch": global_batch,
                "sequence_length": sequence_length,
                "precision": precision,
                "objective": objective,
                "top": 0,
                "memory_headroom": memory_headroom,
                "limits": limits,
            },
            refused={
                "--tokens": tokens is not None,
                "--time-limit": time_limit is not None,
                "--pareto": pareto,
                "--target": target is not None,
                "--offload": offload is not None,
                "--routing": routing is not None,
                "--overlay": bool(overlay),
            },
            output=output,
            json=json,
        )
        return
    _require_no_islands(allow, link)
    inputs = inputs_of(
        model if routing is None else _routed(model, routing),
        cluster,
        stack=stack,
        overlays=overlay or (),
        global_batch=global_batch,
        sequence_length=sequence_length,
        precision=precision,
        objective=objective,
        tokens=tokens,
        slower_by=slower_by,
        target_time_s=target_time,
        time_limit_s=time_limit,
        target=target,
        top=top,
        memory_headroom=memory_headroom,
        limits=limits,
    )
    with searching("searching the layouts", shown=shown_progress(inputs.job.objective)) as watch:
        made = _planned(inputs, offload, watch)
        choices = pareto_of(inputs) if pareto else ()
    for warning in warnings(made.plan):
        print_warning(warning)
    if output is not None:
        write_plan(made.plan, output)
    if json:
        front = {"pareto": choices_document(choices)} if pareto else {}
        print_json(plan_document(made.plan, seconds=made.search_s) | front)
        return
    render_plan(output_console(), made.plan, seconds=made.search_s, file=output)
    if pareto:
        render_choices(output_console(), choices)


def _require_whole_front(time_limit: float | None, offload: str | None) -> None:
    """Raise InputError about what a Pareto front can't be of."""
    if time_limit is not None:
        raise InputError(
            "--pareto can't be stopped early: a front is whole or none", hint="leave out --time-limit or --pareto"
        )
    if offload == "auto":
        raise InputError(
            "--pareto is of layouts that don't offload", hint="leave out --offload auto or --pareto", path="--offload"
        )


def _require_no_islands(allow: Sequence[str] | None, link: Sequence[str] | None) -> None:
    """Raise InputError about options of islands, for a cluster that is none."""
    if allow:
        raise InputError("is for islands; here is one cluster", path="--allow", hint="leave out --allow")
    if link:
        raise InputError("joins clusters given as A+B; here is one", path="--link", hint="leave out --link")


def _planned(inputs: "Inputs", offload: str | None, watch: "Watch | None") -> "TimedPlan":
    """Plan without offloading, with it where nothing fits, and both ways where asked to: the faster one is taken.

    Raises MissingData and Infeasible; where offloading wasn't asked for, what is raised is what went wrong without it,
    with a word of why offloading doesn't help.
    """
    from math import inf
    from time import monotonic, perf_counter

    from meshwright.catalog.errors import Infeasible, InputError, MissingData
    from meshwright.planner import TimedPlan, plan_of

    if offload == "auto":
        from meshwright.planner.offload.auto import require_offloadable

        require_offloadable(inputs)
    start = perf_counter()
    deadline = monotonic() + (inf if inputs.job.time_limit_s is None else inputs.job.time_limit_s)
    try:
        made = plan_of(inputs, watch=watch)
    except Infeasible as error:
        if offload == "never" or not error.nearest_miss:  # nothing is legal, however much memory there were
            raise
        from meshwright.planner.offload.auto import plan_offloaded

        try:
            return TimedPlan(plan=plan_offloaded(inputs, deadline=deadline), search_s=perf_counter() - start)
        except (Infeasible, InputError, MissingData) as failure:
            if offload is not None:
                raise
            error.hint = f"{error.hint}; offloading doesn't help: {failure.message}"
            raise error from None
    if offload != "auto":
        return made
    return TimedPlan(plan=_faster(inputs, made.plan, deadline), search_s=perf_counter() - start)


def _faster(inputs: "Inputs", plan: "Plan", deadline: float) -> "Plan":
    """Give the plan that offloads where it is the faster one. Raises MissingData."""
    from meshwright.catalog.errors import Infeasible
    from meshwright.planner.offload.auto import plan_offloaded

    try:
        other = plan_offloaded(inputs, deadline=deadline)
    except Infeasible:
        return plan
    faster = other.offload is not None and other.offload.step_time_s < plan.predicted.step_time_s
    return other if faster else plan


def _routed(model: str, routing: Path) -> "ModelEntry":
    """Give the model with the loads that measured routing gives its experts. Raises InputError."""
    from meshwright.catalog.lookup import find_model
    from meshwright.cli.console import print_warning
    from meshwright.planner.experts import routed_model
    from meshwright.planner.experts.model_sizes import dense_layers, experts_of
    from meshwright.planner.experts.routing_file import read_routing

    entry = find_model(model)
    measured = read_routing(routing, dense=dense_layers(entry), layers=entry.layers, experts=experts_of(entry).experts)
    if measured.model_layers < entry.layers:
        print_warning(
            f"{routing}: is of {len(measured.at)} of the model's layers: all are taken to be as loaded as those"
        )
    return routed_model(entry, measured.routing)
