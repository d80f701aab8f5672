"""Laying overlays over entries: figures of later overlays replace those of earlier ones, and of the catalog."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from meshwright.catalog.cluster_entry import ClusterEntry, TierEntry
from meshwright.catalog.device_entry import CalibrationEntry, DeviceEntry
from meshwright.catalog.errors import InputError
from meshwright.catalog.names import canonical_name, match_name
from meshwright.catalog.overlay_entry import ClusterOverlay, Figures, OverlayEntry
from meshwright.catalog.stack_entry import StackEntry

Overlays = Sequence[OverlayEntry]
Found = TypeVar("Found")
Sourced = TypeVar("Sourced", CalibrationEntry, TierEntry, StackEntry)


def overlaid_device(entry: DeviceEntry, overlays: Overlays) -> DeviceEntry:
    """Give a device with the figures that overlays have for its name."""
    for overlay in overlays:
        found = _named(entry.name, overlay.devices)
        if found is not None:
            calibration = _laid_over(entry.calibration, found.calibration, source=overlay.source)
            residuals = found.residuals or entry.residuals
            entry = entry.model_copy(update={"calibration": calibration, "residuals": residuals})
    return entry


def overlaid_stack(entry: StackEntry, overlays: Overlays) -> StackEntry:
    """Give a stack with the figures that overlays have for its name."""
    for overlay in overlays:
        found = _named(entry.name, overlay.stacks)
        if found is not None:
            entry = _laid_over(entry, found, source=overlay.source)
    return entry


def overlaid_cluster(entry: ClusterEntry, overlays: Overlays) -> ClusterEntry:
    """Give a cluster with the figures that overlays have for its name, and for its device where that is written out.

    Figures of tiers that it doesn't have are left out: an overlay may be of a larger cluster of the same name.
    """
    for overlay in overlays:
        found = _named(entry.name, overlay.clusters)
        if found is not None:
            tiers = tuple(_overlaid_tier(tier, found, source=overlay.source) for tier in entry.tiers)
            entry = entry.model_copy(update={"tiers": tiers})
    if isinstance(entry.device, DeviceEntry):
        return entry.model_copy(update={"device": overlaid_device(entry.device, overlays)})
    return entry


def require_tiers(overlay: OverlayEntry, cluster: ClusterEntry, *, file: str) -> None:
    """Raise InputError where an overlay has figures for a tier that a cluster of that name lacks."""
    found = _named(cluster.name, overlay.clusters)
    tiers = [tier.name for tier in cluster.tiers]
    require_named(found.tiers if found else (), tiers, kind=f"tier of {cluster.name}", file=file, path="clusters")


def require_named(names: Iterable[str], known: Sequence[str], *, kind: str, file: str, path: str) -> None:
    """Raise InputError, with the nearest names, for the first of `names` that isn't known."""
    for name in names:
        try:
            match_name(name, known, kind=kind)
        except InputError as error:
            raise InputError(error.message, file=file, path=path, hint=error.hint) from None


def _overlaid_tier(tier: TierEntry, overlay: ClusterOverlay, *, source: str) -> TierEntry:
    found = _named(tier.name, overlay.tiers)
    return tier if found is None else _laid_over(tier, found, source=source)


def _named(name: str, entries: Mapping[str, Found]) -> Found | None:
    """Give the entry that a name spells, as names are spelt everywhere."""
    spelt = canonical_name(name)
    return next((entry for key, entry in entries.items() if canonical_name(key) == spelt), None)


def _laid_over(entry: Sourced, figures: Figures, *, source: str) -> Sourced:
    """Replace figures of an entry; its source then says which, and where from."""
    given = figures.given
    if not given:
        return entry
    return entry.model_copy(update={**given, "source": f"{entry.source}; {', '.join(given)}: {source}"})
