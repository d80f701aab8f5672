"""A cluster of one kind of device in a hierarchy of network tiers."""

import math
from dataclasses import dataclass

from meshwright.catalog.cluster_entry import ClusterEntry, TierEntry, Topology
from meshwright.catalog.errors import MissingData
from meshwright.catalog.lookup import device_named
from meshwright.hardware.device import Device, device_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One level of the network, joining `group` devices; bandwidth is payload per device and direction.

    link_devices: devices that share one link into the tier, of which one alone has all of it.
    """

    name: str
    group: int
    topology: Topology
    bandwidth_bytes_per_s: float
    link_devices: int
    latency_s: float
    startup_s: float
    efficiency: float
    oversubscription: float
    in_network_reduction: float | None


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

    @property
    def domain_devices(self) -> int:
        """Devices joined by something faster than a fabric: those of a node, or of the nodes that share such a tier."""
        inside = [tier.group for tier in self.tiers if tier.topology is not Topology.FABRIC]
        return max([self.devices_per_node, *inside])


def _tier_of(entry: TierEntry, *, group: int, inner_group: int) -> Tier:
    """Make a tier of `group` devices; where they are fewer than the entry's, a mesh lacks the links to the others."""
    linked = 1.0
    if entry.topology is Topology.MESH and entry.group is not None and group < entry.group:
        linked = (math.ceil(group / inner_group) - 1) / (entry.group / inner_group - 1)
    return Tier(
        name=entry.name,
        group=group,
        topology=entry.topology,
        bandwidth_bytes_per_s=entry.bandwidth * linked,
        link_devices=entry.link_devices,
        latency_s=entry.latency,
        startup_s=entry.startup,
        efficiency=entry.efficiency,
        oversubscription=entry.oversubscription,
        in_network_reduction=entry.in_network_reduction,
    )


def cluster_of(entry: ClusterEntry) -> Cluster:
    """Make the frozen cluster of a catalog entry. Tiers that its devices don't reach across are left out.

    Raises InputError where the entry's device is not in the catalog, and MissingData where nodes have no network.
    """
    inside = (Topology.MESH, Topology.RING, Topology.SHARED_BUS)
    if entry.devices > entry.devices_per_node and len(entry.tiers) == 1 and entry.tiers[0].topology in inside:
        raise MissingData(
            f"{entry.name} has no network between nodes of {entry.devices_per_node} devices, "
            f"and {entry.devices} are asked for",
            hint=f"use at most {entry.devices_per_node} devices, or a cluster file with a tier for the network",
        )
    device = entry.device if not isinstance(entry.device, str) else device_named(entry.device)
    tiers: list[Tier] = []
    inner_group = 1
    for tier in entry.tiers:
        group = entry.devices if tier.group is None else min(tier.group, entry.devices)
        tiers.append(_tier_of(tier, group=group, inner_group=inner_group))
        inner_group = group
        if group == entry.devices:
            break
    return Cluster(
        name=entry.name,
        device=device_of(device),
        devices=entry.devices,
        devices_per_node=min(entry.devices_per_node, entry.devices),
        tiers=tuple(tiers),
    )
