"""Reading overlays from files."""

from collections.abc import Sequence
from pathlib import Path

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.document import read_document, validate
from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import entry_names, find_cluster
from meshwright.catalog.names import match_name
from meshwright.catalog.overlay import require_named, require_tiers
from meshwright.catalog.overlay_entry import OverlayEntry

SECTIONS = ("devices", "clusters", "stacks")
_HINT = "`meshwright calibrate -o FILE` writes an overlay"


def read_overlay(path: Path, *, own_clusters: Sequence[ClusterEntry] = ()) -> OverlayEntry:
    """Read an overlay.

    Args:
        path: its file.
        own_clusters: clusters from files of the user, whose names, and whose devices' names, are known too.

    Raises InputError, also where it names what isn't there.

    """
    file = str(path)
    document = read_document(path)
    if not isinstance(document, dict) or "version" not in document:
        why = "is empty" if document is None else "is not an overlay: it has no version"
        raise InputError(why, file=file, hint=_HINT)
    overlay = validate(OverlayEntry, document, file=file)
    own = {cluster.name: cluster for cluster in own_clusters}
    devices = [cluster.device.name for cluster in own_clusters if isinstance(cluster.device, DeviceEntry)]
    require_named(overlay.devices, (*entry_names("devices"), *devices), kind="device", file=file, path="devices")
    require_named(overlay.stacks, entry_names("stacks"), kind="stack", file=file, path="stacks")
    known = (*entry_names("clusters"), *own)
    require_named(overlay.clusters, known, kind="cluster", file=file, path="clusters")
    for name in overlay.clusters:
        found = match_name(name, known, kind="cluster")
        require_tiers(overlay, own.get(found) or find_cluster(found), file=file)
    if not any(_has_figures(overlay.model_dump(mode="json")[section]) for section in SECTIONS):
        raise InputError("holds no figures", file=file, hint=_HINT)
    return overlay


def _has_figures(value: object) -> bool:
    """Tell whether anything but empty sections is in a section."""
    return any(map(_has_figures, value.values())) if isinstance(value, dict) else True
