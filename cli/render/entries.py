"""Catalog entries: lists of what matters most of each kind, and single entries as they are written."""

from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from typing import Any

import yaml
from rich.console import Console

from meshwright.catalog.document import parse_yaml
from meshwright.catalog.entry import Entry
from meshwright.catalog.lookup import (
    device_named,
    entry_names,
    find_cluster,
    find_model,
    looks_like_path,
    stack_named,
)
from meshwright.catalog.names import match_name
from meshwright.catalog.overlay import Overlays
from meshwright.catalog.precision import Precision
from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.units import shown_bytes, shown_parameters, shown_rate
from meshwright.costmodels.parameters import active_parameters, total_parameters
from meshwright.costmodels.transformer import transformer_of

Facts = Mapping[str, str]

FINDERS: Mapping[str, Callable[[str, Overlays], Entry]] = {
    "devices": device_named,
    "clusters": find_cluster,
    "models": lambda name, _: find_model(name),
    "stacks": stack_named,
}
# Kinds whose entries need not be in the catalog: a file, or another size.
OPEN_KINDS = ("models", "clusters")


def kind_document(kind: str) -> list[str]:
    """Give the JSON form of a kind: its names."""
    return list(entry_names(kind))


def entry_text(kind: str, name: str, overlays: Overlays = ()) -> str:
    """Give an entry of the catalog as it is written, or one of a file, another size or under overlays as it is read.

    Raises InputError where there is no such entry.
    """
    if overlays or (kind in OPEN_KINDS and (looks_like_path(name) or ":" in name)):
        document = FINDERS[kind](name, overlays).model_dump(mode="json", exclude_defaults=True)
        return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120))
    found = match_name(name, entry_names(kind), kind=kind.removesuffix("s"))
    return (files("meshwright.catalog") / kind / f"{found}.yaml").read_text("utf-8")


def entry_document(kind: str, name: str, overlays: Overlays = ()) -> Any:  # noqa: ANN401 - whatever the file holds
    """Give an entry as JSON holds it. Raises InputError where there is no such entry."""
    return parse_yaml(entry_text(kind, name, overlays), file=f"{kind}/{name}.yaml")


def render_kind(console: Console, kind: str) -> None:
    """Print a table of one kind."""
    rows = list(KINDS[kind]())
    table = plain_table(kind.capitalize(), list(rows[0]) if rows else ["name"])
    for row in rows:
        add_row(table, *row.values())
    console.print(table)


def _devices() -> Iterator[Facts]:
    for name in entry_names("devices"):
        device = device_named(name)
        peak = device.compute.peak
        fastest = peak.get(Precision.BF16) or peak.get(Precision.FP16)
        yield {
            "device": name,
            "memory": shown_bytes(device.memory.capacity),
            "bandwidth": shown_rate(device.memory.bandwidth),
            "16-bit peak": f"{fastest / 1e12:,.0f} TFLOP/s" if fastest else "-",
            "stands for": device.reference_cluster,
        }


def _clusters() -> Iterator[Facts]:
    for name in entry_names("clusters"):
        cluster = find_cluster(name)
        yield {
            "cluster": name,
            "device": cluster.device if isinstance(cluster.device, str) else cluster.device.name,
            "devices": f"{cluster.devices:,}",
            "a node": str(cluster.devices_per_node),
            "tiers, a device": ", ".join(f"{tier.name} {shown_rate(tier.bandwidth)}" for tier in cluster.tiers),
        }


def _models() -> Iterator[Facts]:
    for name in entry_names("models"):
        entry = find_model(name)
        model = transformer_of(entry)
        yield {
            "model": name,
            "layers": str(entry.layers),
            "hidden": f"{entry.hidden:,}",
            "parameters": shown_parameters(total_parameters(model)),
            "active": shown_parameters(active_parameters(model)),
        }


def _stacks() -> Iterator[Facts]:
    for name in entry_names("stacks"):
        yield {"stack": name, "frameworks": ", ".join(stack_named(name).frameworks)}


KINDS: Mapping[str, Callable[[], Iterator[Facts]]] = {
    "devices": _devices,
    "clusters": _clusters,
    "models": _models,
    "stacks": _stacks,
}
