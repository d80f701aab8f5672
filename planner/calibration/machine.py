"""The machine that is calibrated: a device, the cluster that it stands in, and its usual software."""

from collections.abc import Sequence
from pathlib import Path

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import device_named, find_cluster, stack_named
from meshwright.catalog.names import canonical_name
from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.catalog.overlay_file import read_overlay
from meshwright.planner.accuracy.case_cluster import Machine, machine_named


def machine_to_calibrate(device: str, *, cluster: str | None = None, overlays: Sequence[Path] = ()) -> Machine:
    """Give the machine of a device's name, with its reference cluster or another.

    Args:
        device: a catalog name, or the name of the device that the file of `cluster` writes out.
        cluster: a catalog name or a cluster file; by default the device's reference cluster.
        overlays: files of figures to start from, in place of the catalog's.

    Raises InputError where something isn't found, or the cluster is of another device.

    """
    if cluster is None:
        return machine_named(device, [read_overlay(path) for path in overlays])
    own = find_cluster(cluster)
    laid = tuple(read_overlay(path, own_clusters=(own,)) for path in overlays)
    reference = find_cluster(cluster, laid)
    entry = _device(reference, laid)
    if canonical_name(entry.name) != canonical_name(device):
        raise InputError(
            f"{reference.name} is a cluster of {entry.name}, not of {device:.80}",
            path="--cluster",
            hint="name the cluster's own device with --device",
        )
    return Machine(device=entry, reference=reference, stack=stack_named(entry.stack, laid), overlays=laid)


def _device(cluster: ClusterEntry, overlays: Sequence[OverlayEntry]) -> DeviceEntry:
    return device_named(cluster.device, overlays) if isinstance(cluster.device, str) else cluster.device
