"""Time of collectives on the tiers that a group of ranks really spans.

A group is `size` ranks, `stride` apart, of a cluster whose tiers hold consecutive ranks. On a tier of g devices such
a group has m = min(size, max(1, g / stride)) members, and the devices of the instance belong to min(stride, g) groups
that run at once.

What takes x seconds on the wire is cut into pieces that follow one another through a pipeline of s seconds (the copies
into and out of buffers on both sides); the best number of pieces gives (sqrt(s) + sqrt(x))^2, and each step to a
further member adds its latency:

    t = (sqrt(startup) + sqrt(x))^2 + steps latency
    x = bytes on the slowest wire / its bandwidth + copy of the member's own share in its memory

    collective        algorithm       bytes                 steps
    all-gather        ring            B (n - 1) / n         n - 1
    reduce-scatter    ring            B (n - 1) / n         n - 1
    all-reduce        ring            2 B (n - 1) / n       2 (n - 1)
                      tree            2 B (n - 1) / n       up and down: a chain in the innermost tier, binary above
                      in the switch   B (1 + 1 / n)         2 (n - 1): its members wait for one another
    all-to-all        direct          B (n - 1) / n         binary tree

of which the all-reduce takes the least. Rings and trees (a double tree, of which each half carries half of the bytes)
are limited by the slowest tier crossed. Inside a tier every member uses its own link; entering a fabric the m members
of a node use their m NICs together, since rings are laid one per NIC: a whole-node group gets all of them, a group
with one member a node one. Meshes give a group of m of g members (m - 1) / (g - 1) of a device's links.

A switch that reduces (NVLink SHARP) takes each value once from every member and gives each member its share, which
goes out once and comes in from all: B (1 + 1 / n) bytes a link. On 5 to 8 H100s NCCL moves 258, 265, 270 and 273 GB/s
so, which is 308 GB/s / (1 + 1 / n) (issue 1455 of github.com/NVIDIA/nccl).

A hierarchical all-reduce (reduce-scatter in the node, all-reduce between nodes, all-gather in the node) moves the
bytes of a tree with its latency, but one level after the other, so that it's never faster than the tree here; as the
two levels of sharding it is built of its parts (synchronisation.py).

Sources: Thakur, Rabenseifner, Gropp (2005), "Optimization of Collective Communication Operations in MPICH", for the
rings; Sanders, Speck, Traff (2009), "Two-tree algorithms for full bandwidth broadcast, reduction and scan", for trees
and pieces; nccl 2.23 to 2.29 on 2, 4 and 8 devices from A100 to GB300 (aiconfigurator-core 0.12.0) for the shape:
half of the 3,200 measurements of 1 MB to 512 MB there are within 6.4 % of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshwright.catalog.cluster_entry import Topology
from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray
from meshwright.hardware.cluster import Cluster, Tier

# A byte of a member's own share takes this much of the time of one that passes its innermost link: the thread blocks
# that drive the link copy it, so that its rate goes with the link's (0.3 on A100, 0.4 on H100, 0.5 on B200).
OWN_COPY = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Ranks that communicate: `size` of them, `stride` apart (perhaps some and a half); arrays of one shape."""

    size: IntArray
    stride: NDArray[Any]


def _members(tier: Tier, group: Group) -> FloatArray:
    """Members of the group inside one instance of the tier."""
    return np.minimum(group.size, np.maximum(1.0, np.floor(tier.group / group.stride)))


def _link_bytes_per_s(cluster: Cluster, level: int, group: Group, *, peers: FloatArray, hops: FloatArray) -> FloatArray:
    """Bytes/s that one member moves through a tier to `peers` other units of it, `hops` members of the group away.

    A unit of a mesh has a link to each other one, and uses those to its peers. In a ring a message passes all units
    between, where it shares their links with the groups and messages that pass there too. Elsewhere it uses all it has.
    """
    tier = cluster.tiers[level]
    inner_size = cluster.tiers[level - 1].group if level else 1
    bandwidth = tier.bandwidth_bytes_per_s * tier.efficiency / tier.oversubscription
    if tier.topology is Topology.MESH:
        return bandwidth * np.clip(peers / max(tier.group / inner_size - 1.0, 1.0), None, 1.0)
    if tier.topology is Topology.RING:
        return bandwidth / (np.maximum(group.stride / inner_size, 1.0) * hops)
    return np.full(peers.shape, bandwidth)


def _crossings(cluster: Cluster, group: Group) -> Iterator[tuple[int, FloatArray, FloatArray]]:
    """Give each tier's level, with the group's members in one of its instances and in one of the tier inside it."""
    inner_members = np.ones(group.size.shape)
    for level, tier in enumerate(cluster.tiers):
        members = _members(tier, group)
        yield level, members, inner_members
        inner_members = members


def ring_bus_bytes_per_s(cluster: Cluster, group: Group) -> FloatArray:
    """Give the bus bandwidth of a ring through the group, infinite for a group of one."""
    slowest = np.full(group.size.shape, np.inf)
    for level, members, inner_members in _crossings(cluster, group):
        peers = np.maximum(members / inner_members - 1.0, 1.0)
        bus = _link_bytes_per_s(cluster, level, group, peers=peers, hops=np.ones(peers.shape)) * inner_members
        slowest = np.where(members > inner_members, np.minimum(slowest, bus), slowest)
    return slowest


def _ring_latency_s(cluster: Cluster, group: Group) -> FloatArray:
    """Latency of the n - 1 steps of a ring, each on the tier that it crosses."""
    total = np.zeros(group.size.shape)
    for level, members, inner_members in _crossings(cluster, group):
        steps = group.size / inner_members - group.size / members
        total = total + cluster.tiers[level].latency_s * np.maximum(steps, 0.0)
    return total


def _tree_latency_s(cluster: Cluster, group: Group, *, chained: bool) -> FloatArray:
    """Latency of going up a tree whose levels are the tiers; `chained`: its innermost tier is a chain, not a tree."""
    total = np.zeros(group.size.shape)
    for level, members, inner_members in _crossings(cluster, group):
        units = np.maximum(members / inner_members, 1.0)
        steps = units - 1.0 if chained and level == 0 else np.ceil(np.log2(units))
        total = total + cluster.tiers[level].latency_s * steps
    return total


def _pipelined_s(cluster: Cluster, group: Group, wire_s: FloatArray) -> FloatArray:
    """Give the seconds of a message cut into the best number of pieces, before the latency of its steps.

    k pieces through n stages of a seconds take (n + k) (a + wire / k), least at k = sqrt(n wire / a); n a is the
    startup of the outermost tier that the group crosses.
    """
    startup_s = np.zeros(group.size.shape)
    for level, members, inner_members in _crossings(cluster, group):
        startup_s = np.where(members > inner_members, cluster.tiers[level].startup_s, startup_s)
    return np.asarray(startup_s + wire_s + 2.0 * np.sqrt(startup_s * wire_s))


def _own_copy_s(cluster: Cluster, group: Group, whole_bytes: FloatArray) -> FloatArray:
    """Give the seconds of copying a member's own share, which passes no wire, from its input to its output."""
    tier = cluster.tiers[0]
    own_bytes = np.asarray(whole_bytes / np.maximum(group.size, 1))
    return OWN_COPY * own_bytes / (tier.bandwidth_bytes_per_s * tier.efficiency / tier.oversubscription)


def _ring_wire_s(cluster: Cluster, group: Group, whole_bytes: FloatArray, *, rounds: int) -> FloatArray:
    size = np.maximum(group.size, 1)
    passed_s = rounds * whole_bytes * (size - 1) / size / ring_bus_bytes_per_s(cluster, group)
    return np.asarray(passed_s + _own_copy_s(cluster, group, whole_bytes))


def all_gather_s(cluster: Cluster, group: Group, whole_bytes: FloatArray) -> FloatArray:
    """Give the seconds of an all-gather, or a reduce-scatter, of `whole_bytes` gathered bytes."""
    wire_s = _ring_wire_s(cluster, group, whole_bytes, rounds=1)
    seconds = _pipelined_s(cluster, group, wire_s) + _ring_latency_s(cluster, group)
    return np.where(group.size > 1, seconds, 0.0)


reduce_scatter_s = all_gather_s


def passed_round_s(
    cluster: Cluster, group: Group, whole_bytes: FloatArray, *, both_ways: BoolArray | bool = False
) -> FloatArray:
    """Give the seconds of n - 1 sends to the next member, after which each has had all of `whole_bytes`.

    Unlike a collective's rings, which together use all links, this one leads through one neighbour: over one link of
    a mesh, one way of a ring, and one NIC of a node, its other sharers' part included. Halves that go `both_ways`
    round use two of each, where there are two; a switch's link and a lone NIC are full either way.
    """
    slowest, ways = np.full(group.size.shape, np.inf), np.where(both_ways, 2.0, 1.0)
    for level, members, inner_members in _crossings(cluster, group):
        peers = np.minimum(ways, np.maximum(members / inner_members - 1.0, 1.0))
        link = _link_bytes_per_s(cluster, level, group, peers=peers, hops=2.0 / ways)
        links = np.minimum(np.maximum(ways, cluster.tiers[level].link_devices), inner_members)
        slowest = np.where(members > inner_members, np.minimum(slowest, link * links), slowest)
    size = np.maximum(group.size, 1)
    wire_s = whole_bytes * (size - 1) / size / slowest + _own_copy_s(cluster, group, whole_bytes)
    seconds = _pipelined_s(cluster, group, wire_s) + _ring_latency_s(cluster, group)
    return np.where(group.size > 1, seconds, 0.0)


def all_reduce_s(cluster: Cluster, group: Group, whole_bytes: FloatArray) -> FloatArray:
    """Give the seconds of an all-reduce of a buffer of `whole_bytes`, by the fastest of its algorithms."""
    up_s = np.minimum(_ring_latency_s(cluster, group), _tree_latency_s(cluster, group, chained=True))
    wire_s = _ring_wire_s(cluster, group, whole_bytes, rounds=2)
    for level, members, inner_members in _crossings(cluster, group):
        tier = cluster.tiers[level]
        if tier.in_network_reduction is not None:
            bandwidth = tier.bandwidth_bytes_per_s * tier.in_network_reduction / tier.oversubscription
            in_switch_s = whole_bytes * (1.0 + 1.0 / np.maximum(group.size, 1)) / bandwidth
            inside = (inner_members == 1) & (members == group.size)
            wire_s = np.where(inside, np.minimum(wire_s, in_switch_s), wire_s)
    return np.where(group.size > 1, _pipelined_s(cluster, group, wire_s) + 2.0 * up_s, 0.0)


def _even_share(others: FloatArray) -> FloatArray:
    return others * (1.0 - others / (others + 1.0))


def all_to_all_s(
    cluster: Cluster,
    group: Group,
    sent_bytes: FloatArray,
    *,
    leaving: Callable[[FloatArray], FloatArray] = _even_share,
) -> FloatArray:
    """Give the seconds of an all-to-all in which each member sends `sent_bytes` in all, its own share included.

    What goes to members outside a tier's instance passes the member's own link into the next tier; tiers work at once.
    Around a ring of m units it travels m / 4 on average.
    leaving: gives the share of what is sent that leaves an instance for g others; all of g / (g + 1) where each member
    gets as much, less where what several of an instance want enters it once.
    """
    size = np.maximum(group.size, 1)
    slowest = np.zeros(np.broadcast_shapes(group.size.shape, np.shape(sent_bytes)))
    for level, members, inner_members in _crossings(cluster, group):
        others = size / inner_members - 1.0
        outward = sent_bytes * np.where(members > inner_members, leaving(others), 0.0)
        peers = np.maximum(members / inner_members - 1.0, 1.0)
        hops = np.maximum((peers + 1.0) / 4.0, 1.0)
        slowest = np.maximum(slowest, outward / _link_bytes_per_s(cluster, level, group, peers=peers, hops=hops))
    seconds = _pipelined_s(cluster, group, slowest + _own_copy_s(cluster, group, sent_bytes))
    return np.where(group.size > 1, seconds + _tree_latency_s(cluster, group, chained=False), 0.0)


def send_s(cluster: Cluster, group: Group, message_bytes: FloatArray) -> FloatArray:
    """Give the seconds of a message between neighbours of the group, on the slowest tier that the group crosses.

    Of the members inside an instance one alone sends to the next instance, over links that the others leave idle.
    """
    wire_s = np.zeros(np.broadcast_shapes(group.size.shape, np.shape(message_bytes)))
    latency_s, one = np.zeros(group.size.shape), np.ones(group.size.shape)
    for level, members, inner_members in _crossings(cluster, group):
        link = _link_bytes_per_s(cluster, level, group, peers=one, hops=one)
        link = link * np.minimum(inner_members, cluster.tiers[level].link_devices)
        crossed = members > inner_members
        wire_s = np.where(crossed, np.maximum(wire_s, message_bytes / link), wire_s)
        latency_s = np.where(crossed, np.maximum(latency_s, cluster.tiers[level].latency_s), latency_s)
    return np.where(group.size > 1, _pipelined_s(cluster, group, wire_s) + latency_s, 0.0)
