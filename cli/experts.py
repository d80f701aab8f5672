"""`meshwright experts`: which device holds which expert."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshwright.catalog.errors import InputError
from meshwright.cli.arguments import OverlayFiles, duration, file_path, of_option, one_of
from meshwright.cli.outputs import require_apart

if TYPE_CHECKING:
    from meshwright.catalog.model_entry import ModelEntry
    from meshwright.costmodels.layout import FloatArray
    from meshwright.hardware.cluster import Cluster
    from meshwright.planner.experts import Placement
    from meshwright.planner.experts.routing_file import Measured

# As planner/experts/placement.py has them, whose imports `--help` needn't wait for.
OBJECTIVES = ("balance", "traffic", "both")
DISPATCHES = ("equal-split", "locality-first")
HEAT_MAPS = ("svg", "png")


def experts_command(  # noqa: PLR0913 - one argument an option
    routing: Annotated[
        Path,
        typer.Argument(help="Measured routing: .npy, .npz, .json, .csv, or SGLang's dump (.pt).", parser=file_path),
    ],
    *,
    devices: Annotated[int, typer.Option(help="Devices that hold the experts.")],
    nodes: Annotated[int, typer.Option(help="Nodes of as many devices each.")] = 1,
    slots: Annotated[
        int | None, typer.Option(help="Places for experts and their replicas, of all devices; by default the fewest.")
    ] = None,
    redundant: Annotated[int | None, typer.Option(help="The same as so many slots more than experts.")] = None,
    memory_per_device: Annotated[
        str | None, typer.Option(help='What experts may take of a device: "40 GiB". Needs --model.', metavar="BYTES")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="The largest load, tokens that travel, or both, as by default where it is known where they come from.",
            parser=one_of("objective", OBJECTIVES),
            metavar="|".join(OBJECTIVES),
        ),
    ] = None,
    load_cap: Annotated[
        float | None, typer.Option(help="The largest load over the mean that traffic is saved for (1.01 for both).")
    ] = None,
    dispatch: Annotated[
        str,
        typer.Option(
            help="The replica that the engine sends a token to.",
            parser=one_of("dispatch", DISPATCHES),
            metavar="|".join(DISPATCHES),
        ),
    ] = "equal-split",
    previous: Annotated[
        Path | None,
        typer.Option(help="The placement that is there, of any format: few weights are moved.", parser=file_path),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            help="Stop improving after so long: 2 s.", parser=of_option("--time-limit", duration), metavar="TIME"
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model, for dense layers, the size of experts and the time of a layer.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="The cluster, for the memory of its devices and the time of a layer.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The folder to make.", parser=file_path, metavar="FOLDER")
    ] = None,
    heat_map: Annotated[
        str,
        typer.Option(
            help="What the heat map in the folder is drawn as.",
            parser=one_of("heat-map", HEAT_MAPS),
            metavar="|".join(HEAT_MAPS),
        ),
    ] = "svg",
    force: Annotated[bool, typer.Option("--force", help="Replace the folder if it is there.")] = False,
    overlay: OverlayFiles = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Place experts so that no device is overloaded and few tokens travel, and say how far that is from the best."""
    from meshwright.cli.console import output_console, print_json
    from meshwright.cli.render.placements import placement_document, render_placement, render_placement_files
    from meshwright.planner.experts import place_experts
    from meshwright.planner.experts.output import even_loads, in_turn, placement_files
    from meshwright.planner.experts.placement_file import read_placement
    from meshwright.planner.experts.routing import require_homes
    from meshwright.planner.folder_replacement import require_free, write_folder

    if output is not None:
        require_free(output, force=force)
        require_apart(output, (routing, previous, *(overlay or ())), names=(model, cluster))
    entry = _model(model)
    if cluster is not None and entry is None:
        raise InputError("says nothing without the model", path="--cluster", hint="name the model with --model")
    if overlay and cluster is None:
        raise InputError("says nothing without the cluster", path="--overlay", hint="name the cluster with --cluster")
    hardware = None if cluster is None else _hardware(cluster, overlay or ())
    _require_devices(cluster, devices)
    measured = _measured(routing, entry)
    require_homes(measured.routing, devices, file=str(routing))
    there = None if previous is None else read_placement(previous)
    loads = measured.routing.loads
    placement = place_experts(
        measured.routing,
        devices=devices,
        nodes=nodes,
        slots=_slots(slots, redundant, measured.routing.experts),
        objective=objective,
        load_cap=load_cap,
        dispatch=dispatch,
        previous=there,
        most_on_device=_most_on_device(memory_per_device, entry, hardware),
        time_limit_s=time_limit,
    )
    first = in_turn(len(loads), loads.shape[1], placement.slots) if there is None else there
    before = even_loads(loads, first, devices=devices)
    after = even_loads(loads, placement.placement, devices=devices)
    more = _more(placement, entry, hardware, before=before, loads=loads)
    files = dict(placement_files(placement, at=measured.at, model_layers=measured.model_layers))
    if output is not None:
        files |= _heat_map(before, after, heat_map)
    paths = () if output is None else write_folder(files, output, force=force)
    if json:
        print_json(placement_document(placement, more=more | ({"files": [str(p) for p in paths]} if paths else {})))
        return
    console = output_console()
    chained = measured.routing.transitions is not None and measured.routing.tokens is None
    render_placement(console, placement, before=float(before.max(axis=1).mean()), more=more, chained=chained)
    if paths:
        render_placement_files(console, paths)


def _heat_map(before: "FloatArray", after: "FloatArray", kind: str) -> dict[str, bytes]:
    """Give the heat map by its name; nothing, and a warning, where there is nothing to draw it with."""
    from meshwright.cli.console import print_warning

    if find_spec("matplotlib") is None:
        print_warning("the heat map isn't drawn: matplotlib isn't installed (pip install matplotlib)")
        return {}
    from meshwright.cli.render.expert_heat_map import draw_heat_map
    from meshwright.cli.render.figure_kind import FigureKind

    return {f"heat_map.{kind}": draw_heat_map(before, after, FigureKind(kind))}


def _model(name: str | None) -> "ModelEntry | None":
    from meshwright.catalog.lookup import find_model

    return None if name is None else find_model(name)


def _hardware(name: str, overlays: Sequence[Path]) -> "Cluster":
    from meshwright.catalog.lookup import device_named, find_cluster
    from meshwright.catalog.overlay import overlaid_cluster, overlaid_device
    from meshwright.catalog.overlay_file import read_overlay
    from meshwright.hardware.cluster import cluster_of

    named = find_cluster(name)
    laid = [read_overlay(path, own_clusters=(named,)) for path in overlays]
    entry = overlaid_cluster(named, laid)
    device = device_named(entry.device) if isinstance(entry.device, str) else entry.device
    return cluster_of(entry.model_copy(update={"device": overlaid_device(device, laid)}))


def _measured(file: Path, model: "ModelEntry | None") -> "Measured":
    from meshwright.cli.console import print_warning
    from meshwright.planner.experts.model_sizes import dense_layers, experts_of
    from meshwright.planner.experts.routing_file import read_routing

    if model is None:
        return read_routing(file)
    measured = read_routing(file, dense=dense_layers(model), layers=model.layers, experts=experts_of(model).experts)
    if measured.model_layers < model.layers:
        print_warning(
            f"{file}: is of {len(measured.at)} of the model's layers: memory is counted, and files are written, for "
            "those alone"
        )
    return measured


def _require_devices(cluster: str | None, devices: int) -> None:
    from meshwright.catalog.lookup import find_cluster
    from meshwright.hardware.cluster import cluster_of

    if cluster is not None and devices > (there := cluster_of(find_cluster(cluster)).devices):
        raise InputError(f"{devices} are more than the {there} of {cluster}", path="--devices")


def _slots(slots: int | None, redundant: int | None, experts: int) -> int | None:
    if slots is not None and redundant is not None:
        raise InputError("is given beside --slots, which says the same", path="--redundant")
    if redundant is not None and redundant < 0:
        raise InputError(f"{redundant} is negative", path="--redundant")
    return slots if redundant is None else experts + redundant


def _most_on_device(memory: str | None, model: "ModelEntry | None", cluster: "Cluster | None") -> int | None:
    """Give how many experts a device's memory holds; None where it isn't said how large both are."""
    from meshwright.catalog.quantity import parse_bytes
    from meshwright.planner.experts.model_sizes import expert_bytes

    if memory is not None and model is None:
        raise InputError("needs the size of an expert", path="--memory-per-device", hint="name the model with --model")
    if model is None:
        return None
    if memory is not None:
        try:
            return parse_bytes(memory) // expert_bytes(model)
        except ValueError as error:
            raise InputError(str(error), path="--memory-per-device") from None
    return None if cluster is None else cluster.device.memory_bytes // expert_bytes(model)


def _more(
    placement: "Placement",
    model: "ModelEntry | None",
    cluster: "Cluster | None",
    *,
    before: "FloatArray",
    loads: "FloatArray",
) -> dict[str, Any]:
    """Give what the sizes of model and cluster add: bytes to move, seconds of a layer before and after."""
    import numpy as np

    from meshwright.planner.experts.layer_seconds import layer_seconds
    from meshwright.planner.experts.model_sizes import expert_bytes

    more: dict[str, Any] = {"before": {"max_over_mean": float(before.max(axis=1).mean())}}
    if model is not None and placement.moved is not None:
        more["moved_bytes"] = placement.moved * expert_bytes(model)
    if model is not None and cluster is not None:
        mean = loads.sum(axis=1) / placement.devices
        seconds = {
            when: float(
                layer_seconds(
                    model,
                    cluster,
                    np.stack([most * mean, mean], axis=1),
                    devices=placement.devices,
                    slots=placement.slots,
                    cross_device=cross,
                ).mean()
            )
            for when, most, cross in (
                ("before", before.max(axis=1), None),
                ("after", placement.max_over_mean, placement.cross_device),
            )
        }
        more["layer_s"] = seconds
    return more
