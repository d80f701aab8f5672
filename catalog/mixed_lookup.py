"""Mixed clusters as a user names them: a file with groups, or several clusters joined by plus signs and links."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.document import read_document, validate
from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import device_named, find_cluster, looks_like_path
from meshwright.catalog.mixed_entry import GroupEntry, MixedClusterEntry
from meshwright.catalog.quantity import BytesPerSecond, Seconds, UsdPerGigabyte

LINK = "--link"
_QUANTITIES: dict[str, Any] = {"bandwidth": BytesPerSecond, "latency": Seconds, "price": UsdPerGigabyte}
LINK_FORM = 'such as "100 Gb/s, 20 ms", or "old-new: 100 Gb/s, 20 ms, 0.02 USD/GB" for one of several'


def is_mixed(name: str) -> bool:
    """Tell whether a name is of several clusters: joined by plus signs, or a file that has groups."""
    if "+" in name and not Path(name).exists():
        return True
    if not (looks_like_path(name) and Path(name).is_file()):
        return False
    document = read_document(Path(name))
    return isinstance(document, dict) and "groups" in document


def find_mixed(name: str, links: Sequence[str] = ()) -> MixedClusterEntry:
    """Give a mixed cluster whose groups are written out, with their devices.

    Args:
        name: a file with groups, or clusters joined by plus signs: "dgx-a100:64+./new.yaml:128".
        links: for joined ones, what joins them: `LINK_FORM`.

    Raises InputError.

    """
    if "+" in name and not Path(name).exists():
        return _joined(name, links)
    if links:
        raise InputError("is for clusters joined by plus signs; a file has links of its own", path=LINK)
    path = Path(name)
    entry = validate(MixedClusterEntry, read_document(path), file=name)
    return written_out(entry, file=path)


def written_out(entry: MixedClusterEntry, *, file: Path = Path()) -> MixedClusterEntry:
    """Give a mixed cluster with its groups' clusters and devices written out; those of files lie beside `file`.

    Raises InputError.
    """
    groups = tuple(_written_out(group, number, file) for number, group in enumerate(entry.groups))
    return entry.model_copy(update={"groups": groups})


def _joined(name: str, links: Sequence[str]) -> MixedClusterEntry:
    parts = name.split("+")
    if not all(parts):
        raise InputError(f"{name!r:.80} has a plus sign without a cluster on both sides", path="cluster")
    clusters = [_with_device(find_cluster(part)) for part in parts]
    names = _distinct([cluster.name for cluster in clusters])
    if not links:
        raise InputError(f"nothing joins {' and '.join(names)}", path=LINK, hint=f"say what does: {LINK_FORM}")
    groups = [
        {"name": own, "cluster": cluster.model_dump(mode="json")} for own, cluster in zip(names, clusters, strict=True)
    ]
    document = {
        "name": "+".join(names),
        "groups": groups,
        "links": _all_links(links, names),
        "source": "joined on the command line",
    }
    try:
        return validate(MixedClusterEntry, document, file="")
    except InputError as error:
        if not error.path.startswith("links"):
            raise
        raise InputError(
            error.message.removeprefix(f"{error.path}: "), path=LINK, hint=f"give one that does: {LINK_FORM}"
        ) from None


def _distinct(names: Sequence[str]) -> list[str]:
    """Give names of which those that occur more than once are numbered."""
    return [
        name if names.count(name) == 1 else f"{name}.{names[: position + 1].count(name)}"
        for position, name in enumerate(names)
    ]


def _all_links(texts: Sequence[str], names: Sequence[str]) -> list[dict[str, object]]:
    """Read several links. Raises InputError with the text that can't be read, or joins two groups again."""
    by_pair: dict[tuple[str, str], dict[str, object]] = {}
    for text in texts:
        figures, pairs = _link(text, names)
        for pair in pairs:
            if pair in by_pair:
                raise InputError(
                    f"{text!r:.80} joins {pair[0]} and {pair[1]}, which another one joins already",
                    path=LINK,
                    hint="give each two clusters one link; without names a link is between all of them",
                )
            by_pair[pair] = figures | {"between": list(pair), "source": "given on the command line"}
    return list(by_pair.values())


def _link(text: str, names: Sequence[str]) -> tuple[dict[str, object], list[tuple[str, str]]]:
    """Read `LINK_FORM`: between two groups, or between all where none are named. Raises InputError."""
    pair, colon, rest = text.rpartition(":")
    figures = [part.strip() for part in rest.split(",")]
    if len(figures) not in (2, 3):
        raise InputError(f"{text!r:.80} is no bandwidth and latency", path=LINK, hint=LINK_FORM)
    pairs = [(first, second) for number, first in enumerate(names) for second in names[number + 1 :]]
    if colon:
        named = [each for each in pairs if pair.strip() in (f"{each[0]}-{each[1]}", f"{each[1]}-{each[0]}")]
        if not named:
            raise InputError(f"{pair!r:.80} names no two of {', '.join(names)}", path=LINK, hint=LINK_FORM)
        pairs = named
    fields = dict(zip(("bandwidth", "latency", "price"), figures, strict=False))
    for field, figure in fields.items():
        try:
            TypeAdapter(_QUANTITIES[field]).validate_python(figure)
        except ValidationError as error:
            told = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise InputError(f"the {field} of {text!r:.80}: {told}", path=LINK, hint=LINK_FORM) from None
    return dict(fields), pairs


def _with_device(cluster: ClusterEntry) -> ClusterEntry:
    if isinstance(cluster.device, str):
        return cluster.model_copy(update={"device": device_named(cluster.device)})
    return cluster


def _written_out(group: GroupEntry, number: int, file: Path) -> GroupEntry:
    """Write out a group's cluster, of so many nodes. Raises InputError."""
    where = f"groups.{number}"
    if isinstance(group.cluster, str):
        beside = str(file.parent / group.cluster) if looks_like_path(group.cluster) else group.cluster
        try:
            cluster = find_cluster(beside)
        except InputError as error:
            raise InputError(error.message, file=_shown(file), path=f"{where}.cluster", hint=error.hint) from None
    else:
        cluster = group.cluster
    nodes = group.nodes or -(-cluster.devices // cluster.devices_per_node)
    if group.nodes is not None:
        cluster = cluster.model_copy(update={"devices": group.nodes * cluster.devices_per_node})
    for position, each in enumerate(group.degrade):
        if each.node >= nodes:
            raise InputError(
                f"is {each.node}, but the group's nodes are 0 to {nodes - 1}",
                file=_shown(file),
                path=f"{where}.degrade.{position}.node",
            )
    if sum(each.missing for each in group.degrade) >= nodes:
        raise InputError("leaves the group no node", file=_shown(file), path=f"{where}.degrade")
    return group.model_copy(update={"cluster": _with_device(cluster), "nodes": nodes})


def _shown(file: Path) -> str:
    return "" if file == Path() else str(file)
