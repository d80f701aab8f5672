"""Overlays as they are written: figures of four digits, times in microseconds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from meshwright.catalog.document import validate
from meshwright.catalog.overlay_entry import CalibrationFigures, DeviceOverlay, OverlayEntry
from meshwright.catalog.residuals_entry import ResidualsEntry
from meshwright.planner.calibration.constants import Constant, figures_of

TIMES = frozenset({"kernel_latency", "startup", "latency", "layer_launch", "collective_launch", "expert_launch"})
COUNTS = frozenset({"matmul_half_depth", "attention_half_length"})


def rounded_overlay(constants: Iterable[Constant], log_factors: Iterable[float], *, source: str) -> OverlayEntry:
    """Give the overlay of constants moved by their factors, as its file will hold it."""
    nested = figures_of(constants, log_factors)
    document = {str(section): _written(entries) for section, entries in nested.items()}
    document["devices"] = {name: {"calibration": figures} for name, figures in document["devices"].items()}
    document["clusters"] = {name: {"tiers": tiers} for name, tiers in document["clusters"].items()}
    return validate(OverlayEntry, {"version": 1, "source": source, **document}, file="")


def with_residuals(overlay: OverlayEntry, residuals: Sequence[ResidualsEntry], *, device: str) -> OverlayEntry:
    """Give an overlay that also says how far off left-out steps of a device are."""
    if not residuals:
        return overlay
    calibration = overlay.devices[device].calibration if device in overlay.devices else CalibrationFigures()
    laid = DeviceOverlay(calibration=calibration, residuals=tuple(residuals))
    return overlay.model_copy(update={"devices": {**overlay.devices, device: laid}})


def overlay_yaml(overlay: OverlayEntry) -> str:
    """Give an overlay as YAML: a line a figure."""
    document = {key: value for key, value in overlay.model_dump(mode="json").items() if value != {}}
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120))


def _written(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _written(value) if isinstance(value, Mapping) else written_figure(name, value)
        for name, value in entries.items()
    }


def written_figure(name: str, value: float) -> str | float | int:
    """Give a figure in base units as an overlay writes it."""
    if name in TIMES:
        return f"{float(f'{value * 1e6:.4g}'):g} us"
    return max(round(value), 1) if name in COUNTS else float(f"{value:.4g}")
