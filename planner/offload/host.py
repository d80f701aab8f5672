"""The host of a rank: what memory it offers, and what moves and updates through it sustain.

Ranks of a node share its memory, the memory's bus and its drives; each has a link and processor cores of its own.
"""

from dataclasses import dataclass, replace

from meshwright.catalog.errors import MissingData
from meshwright.hardware.device import Device

HINT = "add it to the device's file, with its source, or fit it to measured steps with --calibrate FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRates:
    """What optimizer steps on the host sustain, as calibration fits them.

    update_per_s: parameters a second that the cores of one rank update.
    bus_bytes_per_s: bytes a second through the memory of a node while all its ranks update.
    link_bytes_per_s: bytes a second of states each way between a rank and its host.
    """

    update_per_s: float
    bus_bytes_per_s: float
    link_bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A node as one of its ranks finds it.

    ranks: that share it. memory_bytes, nvme_bytes: what of them one rank may take.
    copy_bytes_per_s: of plain copies, each way of a rank: the link's, or half its share of the memory's bandwidth where
    that is less, as both ways go through the memory.
    nvme_bytes_per_s: a rank's share, each way; 0 where drives aren't used.
    """

    ranks: int
    memory_bytes: float
    rates: UpdateRates
    copy_bytes_per_s: float
    nvme_bytes: float = 0.0
    nvme_bytes_per_s: float = 0.0


def host_of(device: Device, *, devices_per_node: int, ranks: int, rates: UpdateRates | None = None) -> Host:
    """Make the host of one of `ranks` ranks on a node of `devices_per_node` devices.

    A catalog's device has its share of a node; ranks that are fewer than its devices share all of it.

    Args:
        device: the device.
        devices_per_node: devices that a whole node has.
        ranks: that train on each node.
        rates: measured ones, in place of the catalog's.

    Raises MissingData, naming the field, where the catalog lacks a bandwidth.

    """
    memory = device.host_bandwidth("memory_bandwidth")
    link = device.host_bandwidth("link_bandwidth")
    update = device.host_update
    if rates is None:
        if update is None:
            raise MissingData(f"the catalog has no host.update for {device.name}", hint=HINT)
        rates = UpdateRates(
            update_per_s=update.update_bandwidth / 32,
            bus_bytes_per_s=update.memory_share * memory * devices_per_node,
            link_bytes_per_s=update.link_share * link,
        )
    copy_share = 1.0 if update is None else update.copy_share
    return Host(
        ranks=ranks,
        memory_bytes=device.host_memory_bytes * devices_per_node / ranks,
        rates=rates,
        copy_bytes_per_s=min(copy_share * link, memory * devices_per_node / ranks / 2),
    )


def with_nvme(host: Host, device: Device, *, devices_per_node: int) -> Host:
    """Give the host with its drives. Raises MissingData where the catalog has none."""
    if device.nvme is None:
        raise MissingData(f"the catalog has no host.nvme for {device.name}", hint=HINT.partition(",")[0])
    share = devices_per_node / host.ranks
    return replace(host, nvme_bytes=device.nvme.capacity * share, nvme_bytes_per_s=device.nvme.bandwidth * share)
