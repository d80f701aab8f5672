"""One accelerator, in base units."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from meshwright.catalog.device_entry import (
    CalibrationEntry,
    DeviceEntry,
    HostLink,
    HostUpdateEntry,
    NvmeEntry,
    PowerScalingEntry,
)
from meshwright.catalog.errors import MissingData
from meshwright.catalog.precision import Precision
from meshwright.catalog.residuals_entry import ResidualsEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An accelerator as its driver counts devices. `calibration` holds the measured constants of its laws.

    residuals: how far off the user's own left-out steps are, which intervals are made from; none by the catalog alone.
    """

    name: str
    vendor: str
    family: str
    memory_bytes: int
    memory_bandwidth_bytes_per_s: float
    compute_units: int
    tile_rows: int
    tile_columns: int
    peak_flop_per_s: Mapping[Precision, float] = field(hash=False)
    exponentials_per_s: float | None
    host_memory_bytes: int
    host_memory_bandwidth_bytes_per_s: float | None
    host_link: HostLink
    host_link_bandwidth_bytes_per_s: float | None
    power_w: float
    price_usd_per_hour: float | None
    calibration: CalibrationEntry
    power_scaling: PowerScalingEntry | None = None
    host_update: HostUpdateEntry | None = None
    nvme: NvmeEntry | None = None
    residuals: tuple[ResidualsEntry, ...] = ()

    def peak(self, precision: Precision) -> float:
        """Give the dense peak in FLOP/s.

        Raises MissingData where the device has no such format.
        """
        found = self.peak_flop_per_s.get(precision)
        if found is None:
            have = ", ".join(sorted(self.peak_flop_per_s))
            raise MissingData(
                f"the catalog has no {precision} peak for {self.name}",
                hint=f"it has {have}; add compute.peak.{precision} to the device's file, with its source",
            )
        return found

    def host_bandwidth(self, field: Literal["memory_bandwidth", "link_bandwidth"]) -> float:
        """Give the bytes a second through the host's memory, or of the link to it.

        Raises MissingData, naming the field, where it is unknown.
        """
        links = {
            "memory_bandwidth": self.host_memory_bandwidth_bytes_per_s,
            "link_bandwidth": self.host_link_bandwidth_bytes_per_s,
        }
        found = links[field]
        if found is None:
            raise MissingData(
                f"the catalog has no host.{field} for {self.name}", hint="add it to the device's file, with its source"
            )
        return found


def device_of(entry: DeviceEntry) -> Device:
    """Make the frozen device of a catalog entry."""
    return Device(
        name=entry.name,
        vendor=entry.vendor,
        family=entry.family,
        memory_bytes=entry.memory.capacity,
        memory_bandwidth_bytes_per_s=entry.memory.bandwidth,
        compute_units=entry.compute.units,
        tile_rows=entry.compute.tile_rows,
        tile_columns=entry.compute.tile_columns,
        peak_flop_per_s=dict(entry.compute.peak),
        exponentials_per_s=entry.compute.exponentials,
        host_memory_bytes=entry.host.memory,
        host_memory_bandwidth_bytes_per_s=entry.host.memory_bandwidth,
        host_link=entry.host.link,
        host_link_bandwidth_bytes_per_s=entry.host.link_bandwidth,
        host_update=entry.host.update,
        nvme=entry.host.nvme,
        power_w=entry.power.limit,
        power_scaling=entry.power.scaling,
        price_usd_per_hour=entry.price.hourly if entry.price else None,
        calibration=entry.calibration,
        residuals=entry.residuals,
    )
