"""What a device is predicted to do by the constants of other families: how far off a machine is that nobody measured.

Each family of devices with measured rows is predicted with shares of peak and bandwidth that are the geometric mean
over the other families, each counting once. The errors on rows whose inputs are all told then need intervals of half
width q; those of measured families need w, so that not to have been measured adds u = sqrt(q^2 - w^2).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import numpy as np

from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.overlay_entry import CalibrationFigures, DeviceOverlay, OverlayEntry
from meshwright.planner.accuracy.estimate import Estimate, estimate
from meshwright.planner.accuracy.rows import Row, rows_of
from meshwright.planner.accuracy.spread import LEVEL, knowledge_of, log_error
from meshwright.planner.uncertainty import Knowledge, Quantity

BORROWED = (
    "matmul_ceiling",
    "narrow_matmul_ceiling",
    "matmul_half_depth",
    "attention_forward",
    "attention_backward",
    "attention_ampere",
    "attention_half_length",
    "streaming",
)
COUNTS = ("matmul_half_depth", "attention_half_length")


def unmeasured_factor(estimates: Sequence[Estimate], rows: Sequence[Row], devices: Mapping[str, DeviceEntry]) -> float:
    """Give the factor by which not to have been measured widens an interval.

    Args:
        estimates: predictions of measured cases by the catalog's constants.
        rows: their rows, with predictions by constants that didn't see them.
        devices: all devices by name.

    """
    by_family: dict[str, list[Estimate]] = defaultdict(list)
    for item in estimates:
        by_family[devices[item.case.cluster.device].family].append(item)
    borrowed = [
        row
        for family in sorted(by_family)
        for row in rows_of((again, None) for again in _borrowed(family, by_family[family], devices))
    ]
    return math.exp(math.sqrt(max(_width(borrowed) ** 2 - _width(rows) ** 2, 0.0)))


def _borrowed(family: str, estimates: Sequence[Estimate], devices: Mapping[str, DeviceEntry]) -> Iterable[Estimate]:
    figures = _figures_of_others(family, devices.values())
    own = {name: DeviceOverlay(calibration=figures) for name, entry in devices.items() if entry.family == family}
    overlay = OverlayEntry(version=1, source="the mean of other families", devices=own)
    return estimate([item.case for item in estimates], overlays=(overlay,))


def _figures_of_others(family: str, devices: Iterable[DeviceEntry]) -> CalibrationFigures:
    by_family: dict[str, list[DeviceEntry]] = defaultdict(list)
    for entry in devices:
        if entry.family != family:
            by_family[entry.family].append(entry)
    means: dict[str, float] = {}
    for name in BORROWED:
        logs = [
            fmean(given)
            for entries in by_family.values()
            if (given := [math.log(value) for entry in entries if (value := getattr(entry.calibration, name))])
        ]
        means[name] = math.exp(fmean(logs))
    return CalibrationFigures.model_validate(means | {name: round(means[name]) for name in COUNTS})


def _width(rows: Iterable[Row]) -> float:
    """Give the half width that step times of told inputs need."""
    errors = [
        abs(log_error(row))
        for row in rows
        if row.quantity is Quantity.STEP_TIME and knowledge_of(row.case) is Knowledge.TOLD
    ]
    return float(np.quantile(errors, LEVEL, method="higher"))
