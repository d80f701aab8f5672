"""The cluster of a case: its device's reference cluster, with the node size and the network that the case gives."""

import re
from dataclasses import dataclass

from meshwright.catalog.cluster_entry import ClusterEntry, TierEntry
from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.lookup import device_named, entry_names, find_cluster, stack_named
from meshwright.catalog.names import canonical_name
from meshwright.catalog.overlay import Overlays
from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.catalog.stack_entry import StackEntry
from meshwright.hardware.cluster import Cluster, cluster_of
from meshwright.planner.accuracy.case import CaseCluster

LINKS = re.compile(r"([1-9]\d{0,3})x\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A device, with the cluster and the software that stand in where a measurement names only the device.

    `overlays` are laid over all three, and over other clusters that a measurement names.
    """

    device: DeviceEntry
    reference: ClusterEntry
    stack: StackEntry
    overlays: tuple[OverlayEntry, ...] = ()


def machine_named(name: str, overlays: Overlays = ()) -> Machine:
    """Load a device with its reference cluster and its usual stack, under overlays. Raises InputError."""
    device = device_named(name, overlays)
    return Machine(
        device=device,
        reference=find_cluster(device.reference_cluster, overlays),
        stack=stack_named(device.stack, overlays),
        overlays=tuple(overlays),
    )


def _reference(case: CaseCluster, machine: Machine) -> ClusterEntry:
    """Give the catalog cluster that the printed network names ("... (Jean Zay)"), else the device's reference."""
    printed = canonical_name(str(case.inter_node or ""))
    named = next((name for name in entry_names("clusters") if canonical_name(name) in printed), None)
    return find_cluster(named, machine.overlays) if named else machine.reference


def cluster_of_case(case: CaseCluster, machine: Machine) -> tuple[Cluster, tuple[str, ...]]:
    """Give the cluster of a case, and what had to be assumed of it."""
    entry = cluster_entry_of_case(case, machine)
    return cluster_of(entry), tuple(_assumptions(case, entry))


def cluster_entry_of_case(case: CaseCluster, machine: Machine) -> ClusterEntry:
    """Give the entry of a case's cluster: its name and its tiers' names are those of the catalog's.

    The reference's tier that joins its node joins the case's node; smaller tiers that no longer nest are left out.
    A domain larger than a node (NVL72) is used up to the largest share of it that divides the job.
    `inter_node_gbps_per_node`, divided among the devices of a node, replaces the bandwidth of the outermost tier, whose
    links are as many a node as `inter_node` begins with ("4x200 Gb/s HDR IB").
    """
    reference = _reference(case, machine)
    *inner, outermost = reference.tiers
    tiers: list[TierEntry] = []
    for tier in reversed(inner):
        group = _group(tier, case, reference)
        outer = tiers[0].group if tiers else None
        if outer is None or (outer % group == 0 and outer != group):
            tiers.insert(0, tier.model_copy(update={"group": group}))
    return reference.model_copy(
        update={
            "device": machine.device,
            "devices": case.devices,
            "devices_per_node": case.devices_per_node,
            "tiers": (*tiers, _network(outermost, case)),
        }
    )


def _group(tier: TierEntry, case: CaseCluster, reference: ClusterEntry) -> int:
    group = tier.group or case.devices
    if group < reference.devices_per_node:
        return min(group, case.devices_per_node)
    if group == reference.devices_per_node:
        return case.devices_per_node
    return _share_of_domain(group, case)


def _share_of_domain(group: int, case: CaseCluster) -> int:
    """Give the most devices of a domain, in whole nodes, that every domain of the job can fill alike."""
    if case.devices <= group:
        return group
    shares = range(group - group % case.devices_per_node, 0, -case.devices_per_node)
    return next((share for share in shares if case.devices % share == 0), group)


def _network(tier: TierEntry, case: CaseCluster) -> TierEntry:
    if case.inter_node_gbps_per_node is None:
        return tier
    bandwidth = case.inter_node_gbps_per_node * 1e9 / 8 / case.devices_per_node
    links = LINKS.match(str(case.inter_node or ""))
    link_devices = max(case.devices_per_node // int(links[1]), 1) if links else tier.link_devices
    return tier.model_copy(update={"bandwidth": bandwidth, "link_devices": link_devices})


def _assumptions(case: CaseCluster, entry: ClusterEntry) -> list[str]:
    domain = next((tier for tier in entry.tiers[:-1] if tier.group and tier.group > case.devices_per_node), None)
    if domain is not None and domain.group is not None:
        if case.devices <= domain.group:
            return []
        return [f"each {domain.name} domain gives {domain.group} of its devices to the job"]
    if case.devices > case.devices_per_node and case.inter_node_gbps_per_node is None:
        network = entry.tiers[-1]
        return [
            f"the network isn't given: the {network.name} of {entry.name}, {network.bandwidth / 1e9:.0f} GB/s a device"
        ]
    return []
