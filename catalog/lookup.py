"""Looking entries up: by name in the catalog, or in a file of the user."""

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.document import parse_yaml, read_document, validate
from meshwright.catalog.entry import Entry
from meshwright.catalog.errors import InputError
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.names import match_name
from meshwright.catalog.overlay import Overlays, overlaid_cluster, overlaid_device, overlaid_stack
from meshwright.catalog.stack_entry import StackEntry

Kind = TypeVar("Kind", bound=Entry)


def _folder(kind: str) -> Traversable:
    return files("meshwright.catalog") / kind


@cache
def entry_names(kind: str) -> tuple[str, ...]:
    """List the names of one kind ("devices", "clusters", "models", "stacks"), sorted."""
    return tuple(
        sorted(item.name.removesuffix(".yaml") for item in _folder(kind).iterdir() if item.name.endswith(".yaml"))
    )


def _named(schema: type[Kind], kind: str, name: str) -> Kind:
    entry: Kind = _shipped(schema, kind, match_name(name, entry_names(kind), kind=kind.removesuffix("s")))
    return entry


@cache
def _shipped(schema: type[Kind], kind: str, name: str) -> Kind:
    """Read an entry of the catalog, once: neither the files nor the values change while a program runs."""
    file = f"{kind}/{name}.yaml"
    return validate(schema, parse_yaml((_folder(kind) / f"{name}.yaml").read_text("utf-8"), file=file), file=file)


def looks_like_path(name: str) -> bool:
    """Tell a path from a catalog name: it has a separator, or the suffix of a document."""
    return "/" in name or "\\" in name or name.endswith((".yaml", ".yml", ".json"))


def device_named(name: str, overlays: Overlays = ()) -> DeviceEntry:
    """Give a device of the catalog, with the overlays laid over it. Raises InputError."""
    return overlaid_device(_named(DeviceEntry, "devices", name), overlays)


def stack_named(name: str, overlays: Overlays = ()) -> StackEntry:
    """Give a software stack of the catalog, with the overlays laid over it. Raises InputError."""
    return overlaid_stack(_named(StackEntry, "stacks", name), overlays)


def find_model(name: str) -> ModelEntry:
    """Give a model by catalog name, or read it from a file: ours (YAML) or a Hugging Face `config.json`.

    Raises InputError.
    """
    if not looks_like_path(name):
        return _named(ModelEntry, "models", name)
    # Families of configs are many schemas, and most models come by name.
    from meshwright.catalog.hugging_face import is_hugging_face_config, read_hugging_face_config  # noqa: PLC0415

    document = read_document(Path(name))
    if is_hugging_face_config(document):
        return read_hugging_face_config(document, file=name)
    return validate(ModelEntry, document, file=name)


def _cluster_file(path: Path) -> ClusterEntry:
    """Read a user's cluster; its device is written out, a catalog name, or a device file beside it."""
    entry = validate(ClusterEntry, read_document(path), file=str(path))
    if isinstance(entry.device, DeviceEntry):
        _require_known(entry.device.stack, "stacks", file=path, path="device.stack")
    elif looks_like_path(entry.device):
        return entry.model_copy(update={"device": _device_file(path.parent / entry.device)})
    else:
        _require_known(entry.device, "devices", file=path, path="device")
    return entry


def _device_file(path: Path) -> DeviceEntry:
    device = validate(DeviceEntry, read_document(path), file=str(path))
    _require_known(device.stack, "stacks", file=path, path="stack")
    return device


def _require_known(name: str, kind: str, *, file: Path, path: str) -> None:
    """Raise InputError with the nearest names where a file's field names no entry of the catalog."""
    try:
        match_name(name, entry_names(kind), kind=kind.removesuffix("s"))
    except InputError as error:
        raise InputError(error.message, file=str(file), path=path, hint=error.hint) from None


def find_cluster(name: str, overlays: Overlays = ()) -> ClusterEntry:
    """Give a cluster by catalog name or file, resized where `:N` follows ("dgx-h100:64"), with overlays laid over it.

    Raises InputError.
    """
    return overlaid_cluster(_sized_cluster(name), overlays)


def _sized_cluster(name: str) -> ClusterEntry:
    base, colon, size = name.rpartition(":")
    if not colon or "/" in size or "\\" in size:
        base, size = name, ""
    entry = _cluster_file(Path(base)) if looks_like_path(base) else _named(ClusterEntry, "clusters", base)
    if not colon or not size:
        if name.endswith(":"):
            raise InputError(f"{name!r:.80} names no size", hint=f"write {base}:64 for 64 devices of it")
        return entry
    if not (size.isascii() and size.isdigit() and len(size) <= 8) or not 1 <= int(size) <= 10**7:
        raise InputError(f"{size!r:.40} is not a number of devices from 1 to 10,000,000", hint=f"write {base}:64")
    return entry.model_copy(update={"devices": int(size)})
