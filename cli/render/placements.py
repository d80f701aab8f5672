"""A placement of experts, as JSON and as lines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.text import printable
from meshwright.planner.experts.placement import Objective, Placement, Status

PURPOSES = {
    "placement.json": "the placement and its figures; --previous and `meshwright emit` read it",
    "eplb.npz": "EPLB's phy2log, log2phy, logcnt",
    "sglang.json": "SGLang --init-expert-location",
    "vllm.json": "vLLM, a list of slots a layer",
    "vllm_ascend.json": "vllm-ascend expert_map_path",
    "megatron.json": "experts of each rank, layer by layer",
    "heat_map.svg": "load by device and layer, before and after",
    "heat_map.png": "load by device and layer, before and after",
}
HOME_NOTE = (
    "vLLM and SGLang send tokens back to their home device after each layer: what transitions save, they save only "
    "where tokens stay with their experts (context-coherent execution)"
)


def placement_document(placement: Placement, *, more: Mapping[str, Any]) -> dict[str, Any]:
    """Give the JSON form: the placement, its figures, how long it took, and what else is known."""
    return placement.document() | {"seconds": placement.seconds} | dict(more)


def render_placement(
    console: Console, placement: Placement, *, before: float, more: Mapping[str, Any], chained: bool
) -> None:
    """Print the figures. before: the largest load over the mean of experts in turn, averaged over layers."""
    overall = placement.overall()
    counts = (("layer", len(placement.placement)), ("slot", placement.slots), ("device", placement.devices))
    layers, slots, devices = (f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts)
    shape = f"{layers}, {slots} on {devices}"
    table = plain_table(f"Experts of {shape}", ["figure", "value"], [])
    add_row(table, "busiest device over the mean", f"{overall['max_over_mean']:.4f}, before {before:.4f}")
    add_row(table, "no placement is below", f"{overall['lower_bound']:.4f}: at most {overall['gap']:.3%} too much")
    worst = int(placement.gap.argmax())
    add_row(table, "worst layer", f"{worst}: {placement.gap[worst]:.3%} above its bound")
    if placement.filled_over_mean is not None:
        over = float(placement.filled_over_mean.mean())
        add_row(table, "with empty slots filled", f"{over:.4f}: what engines get that leave none empty")
    for name, crossing in (("device", placement.cross_device), ("node", placement.cross_node)):
        if crossing is not None:
            add_row(table, f"tokens that leave their {name}", f"{crossing:.1%}")
    if placement.cross_bound is not None:
        add_row(table, "at least leave it", f"{placement.cross_bound:.1%}")
    if placement.moved is not None:
        size = more.get("moved_bytes")
        add_row(table, "experts to move", f"{placement.moved}" + (f", {size / 1e9:.2f} GB" if size is not None else ""))
    if "layer_s" in more:
        seconds = more["layer_s"]
        add_row(
            table, "experts of a layer", f"{seconds['after'] * 1e3:.3f} ms, before {seconds['before'] * 1e3:.3f} ms"
        )
    proven = placement.objective is not Objective.BALANCE and placement.status is Status.OPTIMAL
    status = f"{placement.status}{' (none under its load cap crosses less)' if proven else ''}"
    add_row(table, "status", f"{status}, found in {placement.seconds:.2f} s: {placement.method}")
    if placement.stopped:
        add_row(table, "time limit", "stopped there: without one it may be better")
    console.print(table)
    if chained and placement.objective is not Objective.BALANCE:
        console.print(HOME_NOTE)


def render_placement_files(console: Console, paths: tuple[Path, ...]) -> None:
    """Print what each file is for."""
    table = plain_table("Written", ["file", "what it is"], [])
    for path in paths:
        add_row(table, printable(str(path)), PURPOSES.get(path.name, ""))
    console.print(table)
