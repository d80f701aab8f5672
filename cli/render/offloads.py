"""Offload plans, and rates of hosts, as JSON and as tables."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console

from meshwright.cli.render.tables import add_row, bars, plain_table
from meshwright.cli.render.text import printable
from meshwright.cli.render.units import shown_bytes, shown_error, shown_rate, shown_seconds, shown_share
from meshwright.planner.figures import significant
from meshwright.planner.offload import OffloadPlan
from meshwright.planner.offload.planned import offload_section
from meshwright.planner.offload.rate_fit import RateFit

BASELINES = {
    "full_recompute": "all on the GPU with full recompute",
    "zero_offload": "ZeRO-Offload",
    "zero_infinity": "ZeRO-Infinity, parameters streamed",
    "twin_flow": "best twin-flow ratio",
    "fixed_stride": "best fixed stride",
}


def offload_document(found: OffloadPlan) -> dict[str, Any]:
    """Give the JSON form of an offload plan; baselines that don't fit are null."""
    section = offload_section(found).model_dump(mode="json")
    return {
        "model": found.model,
        "cluster": found.cluster,
        "target": section["target"],
        "step_time_s": section["step_time_s"],
        "lower_bound_s": section["lower_bound_s"],
        "gap": significant(found.gap),
        "slower_than_free": significant(found.slower_than_free),
        "optimizer": found.optimizer,
        "activations": section["activations"],
        "parameters": section["parameters"],
        "streamed_shares": section["streamed_shares"],
        "memory_bytes": section["memory_bytes"],
        "budget_bytes": section["budget_bytes"],
        "breakdown": section["breakdown_s"],
        "baselines": {
            name: None if one is None else significant(one.step_time_s) for name, one in found.baselines.items()
        },
        "settings": section["settings"],
        "seconds": found.seconds,
        "linear_program_seconds": found.lp_s,
    }


def render_offload(console: Console, found: OffloadPlan, *, file: Path | None) -> None:
    """Print what becomes of activations, optimizer and parameters, what that takes, and what others would."""
    document = offload_document(found)
    table = plain_table(f"{found.model} on {found.layout.world_size} x {found.cluster}", ["", "what is decided"])
    add_row(table, "step", f"{shown_seconds(found.step_time_s)}, {shown_error(found.gap)} against the bound")
    add_row(table, "optimizer", ", ".join(f"{name} {shown_share(share)}" for name, share in found.optimizer.items()))
    counts = Counter(zip(found.parameters, found.streamed_shares, strict=True))
    add_row(table, "parameters", ", ".join(_shown_parameters(*kind, count) for kind, count in sorted(counts.items())))
    memory = document["memory_bytes"]
    add_row(
        table, "memory of a rank", ", ".join(f"{name} {shown_bytes(size)}" for name, size in memory.items() if size)
    )
    if found.target != "free":
        slower = shown_error(found.slower_than_free)
        add_row(table, f"only what {found.target} takes", f"{slower} against the free step")
    console.print(table)
    console.print(f"Decided in {found.seconds:.2f} s, the linear program in {found.lp_s:.2f} s")
    _activations(console, found)
    bars(
        console,
        "Where the step goes",
        {name: max(seconds, 0.0) for name, seconds in found.chosen.breakdown_s.items()},
        shown=shown_seconds,
        total="step",
    )
    _baselines(console, found)
    _settings(console, found)
    if file is not None:
        console.print(f"Written: {printable(str(file))}", markup=False)


def _shown_parameters(name: str, share: float, count: int) -> str:
    part = f" by {shown_share(share)}" if 0 < share < 1 else ""
    return f"{count} layers {name}{part}"


def _activations(console: Console, found: OffloadPlan) -> None:
    """Print a row for each run of layers that are treated alike."""
    names = list(found.activations[0])
    if not names:
        return
    table = plain_table("Activations", ["layers", *names])
    numbered = enumerate(found.activations)
    for choices, layers in groupby(numbered, key=lambda pair: tuple(pair[1].items())):
        own = [number for number, _ in layers]
        span = str(own[0]) if len(own) == 1 else f"{own[0]}-{own[-1]}"
        add_row(table, span, *(dict(choices).get(name, "-") for name in names))
    console.print(table)


def _baselines(console: Console, found: OffloadPlan) -> None:
    table = plain_table("Without a plan", ["system"], ["step", "slower by"])
    for name, one in found.baselines.items():
        if one is None:
            add_row(table, BASELINES[name], "doesn't fit", "-")
        else:
            slower = shown_error(one.step_time_s / found.step_time_s - 1)
            add_row(table, BASELINES[name], shown_seconds(one.step_time_s), slower)
    console.print(table)


def _settings(console: Console, found: OffloadPlan) -> None:
    if not found.settings:
        return
    import yaml

    shown = [name for name in found.settings if name != "checkpoint_policy"]
    text = yaml.safe_dump({name: offload_section(found).settings[name] for name in shown}, sort_keys=False)
    console.print(f"Settings of {found.target}:", style="bold")
    for line in text.splitlines():
        console.print(printable(line), markup=False, soft_wrap=True)


def fits_document(fits: Sequence[RateFit]) -> list[dict[str, Any]]:
    """Give the JSON form of fitted rates."""
    return [
        {
            "machine": fit.machine,
            "update_per_s": significant(fit.rates.update_per_s),
            "bus_bytes_per_s": significant(fit.rates.bus_bytes_per_s),
            "link_bytes_per_s": significant(fit.rates.link_bytes_per_s),
            "runs": fit.runs,
            "median_error": significant(fit.median_error),
        }
        for fit in fits
    ]


def render_fits(console: Console, fits: Sequence[RateFit]) -> None:
    """Print a row a machine."""
    table = plain_table(
        "Rates of hosts", ["machine"], ["updates", "memory bus of a node", "link each way", "runs", "median error"]
    )
    for fit in fits:
        add_row(
            table,
            fit.machine or "-",
            f"{fit.rates.update_per_s / 1e9:.2f} G parameters/s",
            shown_rate(fit.rates.bus_bytes_per_s),
            shown_rate(fit.rates.link_bytes_per_s),
            fit.runs,
            shown_share(fit.median_error),
        )
    console.print(table)
