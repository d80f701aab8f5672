"""Islands of uniform devices, and the links between them: what a mixed cluster is to the planner.

A group whose nodes aren't all alike is cut into parts that are: its whole nodes, and those of each way to be degraded,
which its own outermost tier joins. A node passes no more into that tier than its devices do together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from meshwright.catalog.cluster_entry import ClusterEntry, Topology
from meshwright.catalog.errors import InputError
from meshwright.catalog.mixed_entry import DegradeEntry, GroupEntry, MixedClusterEntry
from meshwright.hardware.cluster import Cluster, cluster_of
from meshwright.hardware.device import Device

HEALTHY = (1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Island:
    """Devices of one kind in one network. nodes: which of its group's they are; group: the group's name."""

    name: str
    group: str
    nodes: tuple[int, ...]
    cluster: Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What joins two islands, by number: bandwidth in each direction, which all their devices share."""

    between: tuple[int, int]
    bandwidth_bytes_per_s: float
    latency_s: float
    price_usd_per_gigabyte: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Islands:
    """A mixed cluster."""

    name: str
    islands: tuple[Island, ...]
    links: tuple[Link, ...]

    @property
    def devices(self) -> int:
        """Devices of all islands."""
        return sum(island.cluster.devices for island in self.islands)

    @property
    def link_of(self) -> Mapping[frozenset[int], Link]:
        """The link of each two islands that have one."""
        return {frozenset(link.between): link for link in self.links}


def islands_of(entry: MixedClusterEntry) -> Islands:
    """Make the islands of a mixed cluster whose groups are written out. Raises InputError and MissingData."""
    islands: list[Island] = []
    parts: list[list[int]] = []
    links: list[Link] = []
    for number, group in enumerate(entry.groups):
        own = list(_parts(group, number))
        parts.append(list(range(len(islands), len(islands) + len(own))))
        islands += [island for island, _ in own]
        links += _inside(_cluster(group, number), own, first=parts[-1][0])
    names = [group.name for group in entry.groups]
    for link in entry.links:
        first, second = (parts[names.index(name)] for name in link.between)
        links += [
            Link(
                between=(one, other),
                bandwidth_bytes_per_s=link.bandwidth * link.left,
                latency_s=link.latency,
                price_usd_per_gigabyte=link.price or 0.0,
            )
            for one in first
            for other in second
        ]
    return Islands(name=entry.name, islands=tuple(islands), links=tuple(links))


def _cluster(group: GroupEntry, number: int) -> ClusterEntry:
    if isinstance(group.cluster, str):
        raise InputError("isn't written out", path=f"groups.{number}.cluster")
    return group.cluster


def _parts(group: GroupEntry, number: int) -> Iterator[tuple[Island, float]]:
    """Give the parts of a group whose nodes are alike, whole ones first, with what is left of their network."""
    cluster = _cluster(group, number)
    ways: dict[tuple[float, float], list[int]] = {HEALTHY: []}
    wrong: dict[int, DegradeEntry] = {each.node: each for each in group.degrade}
    for node in range(-(-cluster.devices // cluster.devices_per_node)):
        each = wrong.get(node)
        if each is None or not each.missing:
            ways.setdefault(HEALTHY if each is None else (each.compute, each.network), []).append(node)
    for way, nodes in ways.items():
        if not nodes:
            continue
        devices = min(len(nodes) * cluster.devices_per_node, cluster.devices)
        whole = cluster_of(cluster.model_copy(update={"devices": devices}))
        island = Island(name=_name(group, way), group=group.name, nodes=tuple(nodes), cluster=_degraded(whole, *way))
        yield island, way[1]


def _name(group: GroupEntry, way: tuple[float, float]) -> str:
    """Name a part of a group after what is left of it."""
    compute, network = way
    if way == HEALTHY:
        return group.name
    return f"{group.name} at {compute:g}" + (f", network {network:g}" if network != 1.0 else "")


def _degraded(cluster: Cluster, compute: float, network: float) -> Cluster:
    tiers = tuple(
        replace(tier, bandwidth_bytes_per_s=tier.bandwidth_bytes_per_s * network)
        if tier.topology is Topology.FABRIC
        else tier
        for tier in cluster.tiers
    )
    return replace(cluster, device=slowed(cluster.device, compute), tiers=tiers)


def slowed(device: Device, share: float) -> Device:
    """Give a device of which all rates are a share of what they were."""
    if share == 1.0:
        return device
    exponentials = device.exponentials_per_s
    return replace(
        device,
        peak_flop_per_s={precision: share * peak for precision, peak in device.peak_flop_per_s.items()},
        memory_bandwidth_bytes_per_s=share * device.memory_bandwidth_bytes_per_s,
        exponentials_per_s=None if exponentials is None else share * exponentials,
    )


def _inside(entry: ClusterEntry, own: Sequence[tuple[Island, float]], *, first: int) -> Iterator[Link]:
    """Give the links between the parts of a group, the first of them numbered `first`.

    Each passes what the devices of the weaker part put into the tier that joins the whole group.
    """
    tier = cluster_of(entry).tiers[-1]
    sustained = tier.bandwidth_bytes_per_s * tier.efficiency / tier.oversubscription
    rates = [
        island.cluster.devices * sustained * (network if tier.topology is Topology.FABRIC else 1.0)
        for island, network in own
    ]
    for (one, rate), (other, another) in combinations(enumerate(rates, first), 2):
        yield Link(
            between=(one, other),
            bandwidth_bytes_per_s=min(rate, another),
            latency_s=tier.latency_s,
            price_usd_per_gigabyte=0.0,
        )
