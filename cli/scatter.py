"""`meshwright scatter`: each step's sequences on groups of devices."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshwright.catalog.errors import InputError, MeshwrightError
from meshwright.catalog.precision import Precision
from meshwright.cli.arguments import OverlayFiles, duration, file_path, of_option, one_of, output_file
from meshwright.cli.outputs import require_apart

if TYPE_CHECKING:
    from meshwright.costmodels.layout import Layout

# As planner/sequences has them, whose imports `--help` needn't wait for.
METHODS = ("ulysses", "ring", "bidirectional-ring", "hybrid", "linear-attention")
MODES = ("lockstep", "free")
FORMATS = ("ours", "megatron-core", "flexsp", "verl")
RECOMPUTES = ("none", "selective", "full")


def scatter_command(  # noqa: PLR0913 - one argument an option
    lengths: Annotated[
        Path,
        typer.Argument(help="Lengths in tokens: .npy, text, CSV or JSON lines, a step a line.", parser=file_path),
    ],
    model: Annotated[str, typer.Argument(help="A catalog name, a model file, or a Hugging Face config.json.")],
    cluster: Annotated[str, typer.Argument(help="A catalog name or a cluster file; dgx-h100:64 is 64 devices of it.")],
    *,
    devices: Annotated[int | None, typer.Option(help="Devices of the cluster; by default all.")] = None,
    tensor_parallel: Annotated[
        int, typer.Option(help="Devices that share each matrix, with sequence parallelism.")
    ] = 1,
    expert_parallel: Annotated[int, typer.Option(help="Devices that share a layer's experts.")] = 1,
    zero_stage: Annotated[
        int, typer.Option(help="What is sharded over all ranks; from 2 on they wait for one another.", min=0, max=3)
    ] = 1,
    recompute: Annotated[
        str,
        typer.Option(
            help="What the backward pass computes again.",
            parser=one_of("recomputation", RECOMPUTES),
            metavar="|".join(RECOMPUTES),
        ),
    ] = "none",
    offload: Annotated[
        bool, typer.Option("--offload", help="Let activations go to the host where that makes groups smaller.")
    ] = False,
    method: Annotated[
        str,
        typer.Option(
            help="What the ranks of a group exchange.", parser=one_of("method", METHODS), metavar="|".join(METHODS)
        ),
    ] = "hybrid",
    mode: Annotated[
        str | None,
        typer.Option(
            help="Whether ranks wait after each micro-batch; by default what is faster and allowed.",
            parser=one_of("mode", MODES),
            metavar="|".join(MODES),
        ),
    ] = None,
    any_degree: Annotated[
        bool, typer.Option("--any-degree", help="Try groups of any number of nodes that divides theirs too.")
    ] = False,
    max_degree: Annotated[int | None, typer.Option(help="No larger groups; 1 splits no sequence.", min=1)] = None,
    no_empty_rank: Annotated[
        bool, typer.Option("--no-empty-rank", help="Give each rank a sequence in each micro-batch.")
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Timed groups, whose fit takes the cost model's place: JSON lines of degree, lengths, time_s.",
            parser=file_path,
            metavar="FILE",
        ),
    ] = None,
    certify: Annotated[
        bool, typer.Option("--certify", help="Prove by linear programs how far from the best it is: seconds.")
    ] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(
            help='Stop improving a step after so long: "50 ms".',
            parser=of_option("--time-limit", duration),
            metavar="TIME",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Format of the matrix products.", parser=one_of("precision", Precision), metavar="|".join(Precision)
        ),
    ] = "bf16",
    memory_headroom: Annotated[float, typer.Option(help="Share of device memory to leave free.")] = 0.05,
    stack: Annotated[str | None, typer.Option(help="Training software; by default the device's usual one.")] = None,
    overlay: OverlayFiles = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="Whose data loader reads the file; those of megatron-core and flexsp are split in lockstep.",
            parser=one_of("format", FORMATS),
            metavar="|".join(FORMATS),
        ),
    ] = "ours",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file to write.", parser=output_file, metavar="FILE")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Split each step's sequences over groups of devices of different sizes, so that the step ends soonest."""
    from meshwright.cli.console import output_console, print_json, watcher
    from meshwright.cli.render.scatters import render_scatters, scatters_document
    from meshwright.planner.file_replacement import replace_file
    from meshwright.planner.sequences.formats import WITH_BARRIERS, Format, steps_text
    from meshwright.planner.sequences.lengths_file import read_lengths
    from meshwright.planner.sequences.scatter import SequenceScatterer

    if output is not None:
        require_apart(output, (lengths, calibrate, *(overlay or ())), names=(model, cluster))
    elif form != "ours":
        raise InputError("no file is written", path="--format", hint="-o names the file")
    if form in WITH_BARRIERS:
        mode = mode or "lockstep"
        if mode == "free":
            raise InputError(
                f"ranks of {form} wait for one another after each micro-batch", path="--mode", hint="lockstep"
            )
    steps = read_lengths(lengths)
    named = cluster if devices is None else _sized(cluster, devices)
    layout = _layout(
        named,
        tensor_parallel=tensor_parallel,
        expert_parallel=expert_parallel,
        zero_stage=zero_stage,
        recompute=recompute,
    )
    scatterer = SequenceScatterer.of(
        model,
        named,
        layout,
        method=method,
        any_degree=any_degree,
        max_degree=max_degree,
        offload=offload,
        measured=calibrate,
        mode=mode,
        time_limit_s=time_limit,
        certify=certify,
        no_empty_rank=no_empty_rank,
        memory_headroom=memory_headroom,
        precision=precision,
        stack=stack,
        overlays=overlay or (),
    )
    found = []
    for number, step in watcher("splitting")(list(enumerate(steps))):
        try:
            found.append(scatterer(step))
        except MeshwrightError as error:
            raise error.within(str(lengths) if len(steps) == 1 else f"{lengths}: step {number}") from None
    if output is not None:
        text = steps_text(Format(form), [(split, step.tolist()) for split, step in zip(found, steps, strict=True)])
        replace_file(output, text.encode())
    if json:
        print_json(scatters_document(found, fit=scatterer.fit))
        return
    if method == "linear-attention":
        output_console().print(f"Times are of {model} if its attention were linear", soft_wrap=True)
    render_scatters(output_console(), found, steps, costs=scatterer.costs, fit=scatterer.fit, file=output)


def _sized(cluster: str, devices: int) -> str:
    if devices < 1:
        raise InputError(f"{devices} devices can't hold anything", path="--devices")
    return f"{cluster.rpartition(':')[0] or cluster}:{devices}"


def _layout(cluster: str, *, tensor_parallel: int, expert_parallel: int, zero_stage: int, recompute: str) -> "Layout":
    """Give the layout of so many replicas as the cluster has room for. Raises InputError."""
    from meshwright.catalog.lookup import find_cluster
    from meshwright.costmodels.layout import Layout, Recompute

    devices = find_cluster(cluster).devices
    for name, degree in (("--tensor-parallel", tensor_parallel), ("--expert-parallel", expert_parallel)):
        if degree < 1 or devices % degree:
            raise InputError(
                f"{devices} devices can't be cut into groups of {degree}", path=name, hint="give a divisor of them"
            )
    ranks = devices // tensor_parallel
    return Layout(
        tensor_parallel=tensor_parallel,
        sequence_parallel=tensor_parallel > 1,
        expert_parallel=expert_parallel,
        data_parallel=ranks,
        zero_stage=zero_stage,
        zero_shard=ranks if zero_stage else 1,
        recompute=Recompute(recompute),
    )
