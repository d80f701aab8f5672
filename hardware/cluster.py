"""A cluster of one kind of device in a hierarchy of network tiers."""

from dataclasses import dataclass

from meshwright.catalog.cluster_entry import ClusterEntry, Topology
from meshwright.catalog.library import device_named
from meshwright.hardware.device import Device, device_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One level of the network, joining `group` devices; bandwidth is payload per device and direction."""

    name: str
    group: int
    topology: Topology
    bandwidth_bytes_per_s: float
    latency_s: float
    efficiency: float
    oversubscription: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """`devices` of one kind. Tiers go from the innermost to the outermost, which joins all devices.

    Ranks are numbered so that each instance of a tier holds consecutive ranks.
    """

    name: str
    device: Device
    devices: int
    devices_per_node: int
    tiers: tuple[Tier, ...]


def cluster_of(entry: ClusterEntry) -> Cluster:
    """Make the frozen cluster of a catalog entry. Tiers that its devices don't reach across are left out.

    Raises InputError where the entry's device is not in the catalog.
    """
    device = entry.device if not isinstance(entry.device, str) else device_named(entry.device)
    tiers = []
    for tier in entry.tiers:
        group = entry.devices if tier.group is None else min(tier.group, entry.devices)
        tiers.append(
            Tier(
                name=tier.name,
                group=group,
                topology=tier.topology,
                bandwidth_bytes_per_s=tier.bandwidth,
                latency_s=tier.latency,
                efficiency=tier.efficiency,
                oversubscription=tier.oversubscription,
            )
        )
        if group == entry.devices:
            break
    return Cluster(
        name=entry.name,
        device=device_of(device),
        devices=entry.devices,
        devices_per_node=min(entry.devices_per_node, entry.devices),
        tiers=tuple(tiers),
    )
