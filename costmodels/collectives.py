"""Time of collectives on the tiers that a group of ranks really spans.

A group is `size` ranks, `stride` apart, of a cluster whose tiers hold consecutive ranks. On a tier of g devices such
a group has m = min(size, max(1, g / stride)) members, and the devices of the instance belong to min(stride, g) groups
that run at once.

A ring passes n - 1 of n shares through every member, so reduce-scatter and all-gather of B bytes take

    t = startup + B (n - 1) / n / bus + steps latency,    all-reduce twice that but for the startup,

where the bus is the slowest tier crossed. Inside a tier every member uses its own link; entering a fabric the m
members of a node use their m NICs together, since rings are laid one per NIC: a whole-node group gets all of them, a
group with one member a node one. Meshes give a group of m of g members (m - 1) / (g - 1) of a device's links.

Source of the ring cost: Thakur, Rabenseifner, Gropp (2005), "Optimization of Collective Communication Operations in
MPICH".
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from meshwright.catalog.cluster_entry import Topology
from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.hardware.cluster import Cluster, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Ranks that communicate: `size` of them, `stride` apart; arrays of one shape."""

    size: IntArray
    stride: IntArray


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


def _startup_s(cluster: Cluster, group: Group) -> FloatArray:
    """Startup of the outermost tier that the group crosses."""
    total = np.zeros(group.size.shape)
    for level, members, inner_members in _crossings(cluster, group):
        total = np.where(members > inner_members, cluster.tiers[level].startup_s, total)
    return total


def _ring_latency_s(cluster: Cluster, group: Group) -> FloatArray:
    """Latency of the n - 1 steps of a ring, each on the tier that it crosses."""
    total = np.zeros(group.size.shape)
    for level, members, inner_members in _crossings(cluster, group):
        total = total + cluster.tiers[level].latency_s * np.maximum(members / inner_members - 1.0, 0.0)
    return total


def _tree_latency_s(cluster: Cluster, group: Group) -> FloatArray:
    """Latency of going up a tree whose levels are the tiers."""
    total = np.zeros(group.size.shape)
    for level, members, inner_members in _crossings(cluster, group):
        steps = np.ceil(np.log2(np.maximum(members / inner_members, 1.0)))
        total = total + cluster.tiers[level].latency_s * steps
    return total


def all_gather_s(cluster: Cluster, group: Group, whole_bytes: FloatArray) -> FloatArray:
    """Give the seconds of an all-gather, or a reduce-scatter, of `whole_bytes` gathered bytes."""
    size = np.maximum(group.size, 1)
    transfer_s = whole_bytes * (size - 1) / size / ring_bus_bytes_per_s(cluster, group)
    return np.where(group.size > 1, _startup_s(cluster, group) + transfer_s + _ring_latency_s(cluster, group), 0.0)


reduce_scatter_s = all_gather_s


def all_reduce_s(cluster: Cluster, group: Group, whole_bytes: FloatArray) -> FloatArray:
    """Give the seconds of an all-reduce of a buffer of `whole_bytes`: a ring's volume, a tree's latency."""
    size = np.maximum(group.size, 1)
    transfer_s = 2.0 * whole_bytes * (size - 1) / size / ring_bus_bytes_per_s(cluster, group)
    latency_s = 2.0 * np.minimum(_ring_latency_s(cluster, group), _tree_latency_s(cluster, group))
    return np.where(group.size > 1, _startup_s(cluster, group) + transfer_s + latency_s, 0.0)


def all_to_all_s(cluster: Cluster, group: Group, sent_bytes: FloatArray, *, copies: int = 1) -> FloatArray:
    """Give the seconds of an all-to-all in which each member sends `sent_bytes` in all, its own share included.

    What goes to members outside a tier's instance passes the member's own link into the next tier; tiers work at once.
    Around a ring of m units it travels m / 4 on average.
    Where each value goes to `copies` random members, it enters each instance of a tier that has any of them once: of
    the g others of g + 1 instances, g (1 - (g / (g + 1))^copies) are expected to.
    """
    size = np.maximum(group.size, 1)
    slowest = np.zeros(np.broadcast_shapes(group.size.shape, np.shape(sent_bytes)))
    for level, members, inner_members in _crossings(cluster, group):
        others = size / inner_members - 1.0
        entered = others * (1.0 - (others / (others + 1.0)) ** copies) / copies
        leaving = sent_bytes * np.where(members > inner_members, entered, 0.0)
        peers = np.maximum(members / inner_members - 1.0, 1.0)
        hops = np.maximum((peers + 1.0) / 4.0, 1.0)
        slowest = np.maximum(slowest, leaving / _link_bytes_per_s(cluster, level, group, peers=peers, hops=hops))
    return np.where(group.size > 1, _startup_s(cluster, group) + slowest + _tree_latency_s(cluster, group), 0.0)


def send_s(cluster: Cluster, group: Group, message_bytes: FloatArray) -> FloatArray:
    """Give the seconds of a message between neighbours of the group, on the slowest tier that the group crosses."""
    total = np.zeros(np.broadcast_shapes(group.size.shape, np.shape(message_bytes)))
    one = np.ones(group.size.shape)
    for level, members, inner_members in _crossings(cluster, group):
        link = _link_bytes_per_s(cluster, level, group, peers=one, hops=one)
        crossing_s = message_bytes / link + cluster.tiers[level].latency_s
        total = np.where(members > inner_members, np.maximum(total, crossing_s), total)
    return np.where(group.size > 1, total, 0.0)
