"""Collectives by hand: 50 GB/s of each device inside a node of 4, 5 GB/s of each between nodes, 1 GB to move."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from meshwright.catalog.cluster_entry import Topology
from meshwright.catalog.lookup import find_cluster
from meshwright.costmodels.collectives import (
    Group,
    all_gather_s,
    all_reduce_s,
    all_to_all_s,
    passed_round_s,
    reduce_scatter_s,
    ring_bus_bytes_per_s,
    send_s,
)
from meshwright.costmodels.layout import FloatArray
from meshwright.hardware.cluster import Cluster, cluster_of

GIGA = 1e9
OWN = 0.4 / 50
"""Seconds for a device to copy 1 GB of its own share: it takes 0.4 of the time of the link's 50 GB/s."""


def pieces(startup_s: float, wire_s: float) -> float:
    """Give the time of a message in the best number of pieces."""
    return (math.sqrt(startup_s) + math.sqrt(wire_s)) ** 2


def group(size: int, stride: int = 1) -> Group:
    return Group(size=np.array([size]), stride=np.array([stride]))


def seconds(
    law: Callable[..., Any], cluster: Cluster, members: Group, sent_bytes: float = GIGA, **more: object
) -> float:
    return float(law(cluster, members, np.array([sent_bytes]), **more)[0])


@pytest.mark.parametrize(
    ("size", "stride", "expected"),
    [
        (4, 1, 50 * GIGA),  # one node
        (2, 2, 50 * GIGA),  # two of one node
        (8, 1, 20 * GIGA),  # two whole nodes: 4 NICs of 5 GB/s
        (4, 2, 10 * GIGA),  # two devices of each of two nodes: their 2 NICs
        (2, 4, 5 * GIGA),  # one device of each of two nodes
        (4, 4, 5 * GIGA),  # one device of each of four nodes
        (2, 8, 5 * GIGA),  # one device of every other node
        (16, 1, 20 * GIGA),
        (1, 1, np.inf),
    ],
)
def test_a_ring_is_as_fast_as_the_slowest_tier_that_it_crosses(
    round_cluster: Callable[..., Cluster], size: int, stride: int, expected: float
) -> None:
    assert ring_bus_bytes_per_s(round_cluster(), group(size, stride)) == pytest.approx([expected])


def test_many_nics_do_not_make_a_ring_faster_than_its_node(round_cluster: Callable[..., Cluster]) -> None:
    fast = round_cluster(fabric={"bandwidth_bytes_per_s": 80 * GIGA})
    assert ring_bus_bytes_per_s(fast, group(8)) == pytest.approx([50 * GIGA])


def test_oversubscription_divides_a_tier(round_cluster: Callable[..., Cluster]) -> None:
    tree = round_cluster(fabric={"oversubscription": 4.0})
    assert ring_bus_bytes_per_s(tree, group(8)) == pytest.approx([5 * GIGA])
    assert ring_bus_bytes_per_s(tree, group(4)) == pytest.approx([50 * GIGA])


def test_part_of_a_mesh_uses_the_links_between_its_members(round_cluster: Callable[..., Cluster]) -> None:
    mesh = round_cluster(8, per_node=8, node={"topology": Topology.MESH})
    # A device has 7 links; m members use m - 1 of them.
    assert ring_bus_bytes_per_s(mesh, group(8)) == pytest.approx([50 * GIGA])
    assert ring_bus_bytes_per_s(mesh, group(4)) == pytest.approx([50 * GIGA * 3 / 7])
    assert ring_bus_bytes_per_s(mesh, group(2)) == pytest.approx([50 * GIGA / 7])


def test_messages_go_in_the_best_number_of_pieces(round_cluster: Callable[..., Cluster]) -> None:
    # k pieces through a pipeline of 5 stages of 4 us: 5 + k slots of a stage and a piece each; 3 steps of 10 us more.
    cluster = round_cluster(fabric={"startup_s": 20e-6})
    wire_s = 150e-3 + OWN / 4
    best_s = min((5 + count) * (4e-6 + wire_s / count) for count in range(1, 1000))
    assert seconds(all_gather_s, cluster, group(4, 4)) == pytest.approx(best_s + 30e-6, rel=1e-4)


@pytest.mark.parametrize("law", [all_gather_s, reduce_scatter_s])
def test_gathers_pass_all_but_their_own_share(law: Callable[..., Any], round_cluster: Callable[..., Cluster]) -> None:
    # One node: 3/4 x 1 GB / 50 GB/s = 15 ms and a quarter copied; 3 steps of 1 us.
    assert seconds(law, round_cluster(), group(4)) == pytest.approx(3e-6 + 15e-3 + OWN / 4)
    # Two nodes: 7/8 x 1 GB / 20 GB/s = 43.75 ms; of the ring's 7 steps 6 are in the nodes, 1 of 10 us between them.
    assert seconds(law, round_cluster(), group(8)) == pytest.approx(16e-6 + 43.75e-3 + OWN / 8)
    # Four nodes: 12 steps in the nodes and 3 between them.
    assert seconds(law, round_cluster(), group(16)) == pytest.approx(42e-6 + 15 / 16 / 20 + OWN / 16)
    # A device of each of four nodes: 3/4 x 1 GB / 5 GB/s = 150 ms; 3 steps of 10 us.
    assert seconds(law, round_cluster(), group(4, 4)) == pytest.approx(30e-6 + 150e-3 + OWN / 4)


def test_a_collective_starts_up_on_the_outermost_tier_that_it_crosses(round_cluster: Callable[..., Cluster]) -> None:
    cluster = round_cluster(node={"startup_s": 2e-6}, fabric={"startup_s": 20e-6})
    in_node, across = pieces(2e-6, 15e-3 + OWN / 4), pieces(20e-6, 43.75e-3 + OWN / 8)
    assert seconds(all_gather_s, cluster, group(4)) == pytest.approx(in_node + 3e-6)
    assert seconds(all_gather_s, cluster, group(8)) == pytest.approx(across + 16e-6)


def test_an_all_reduce_moves_twice_that_and_takes_a_tree_where_it_is_shorter(
    round_cluster: Callable[..., Cluster],
) -> None:
    # One node: 30 ms; twice the 3 steps of the chain.
    assert seconds(all_reduce_s, round_cluster(), group(4)) == pytest.approx(6e-6 + 30e-3 + OWN / 4)
    # Two nodes: 87.5 ms; a tree of chains of 3 and one step between nodes rather than a ring of 6 and one.
    assert seconds(all_reduce_s, round_cluster(), group(8)) == pytest.approx(26e-6 + 87.5e-3 + OWN / 8)
    # Sixteen devices of as many nodes: 15/16 x 2 GB / 5 GB/s; 2 x 4 levels of 10 us.
    assert seconds(all_reduce_s, round_cluster(64), group(16, 4)) == pytest.approx(80e-6 + 375e-3 + OWN / 16)


def test_a_switch_that_reduces_takes_each_value_once(round_cluster: Callable[..., Cluster]) -> None:
    # 3/10 of 100 GB/s: 1 GB and a quarter of it out and in, against twice three quarters at 50 GB/s: 41.7 and 30 ms;
    # 4/10: 31.25 ms; 5/10: 25 ms, so that only there the switch is faster. Two members gain nothing: 30 against 20 ms.
    for share, wire_s in ((0.3, 30e-3 + OWN / 4), (0.4, 31.25e-3), (0.5, 25e-3)):
        cluster = round_cluster(node={"in_network_reduction": share})
        assert seconds(all_reduce_s, cluster, group(4)) == pytest.approx(6e-6 + wire_s)
    assert seconds(all_reduce_s, cluster, group(2)) == pytest.approx(2e-6 + 20e-3 + OWN / 2)
    # It helps neither beyond the node nor gathers.
    plain = round_cluster()
    assert seconds(all_reduce_s, cluster, group(8)) == seconds(all_reduce_s, plain, group(8))
    assert seconds(all_gather_s, cluster, group(4)) == seconds(all_gather_s, plain, group(4))


@pytest.mark.parametrize(("members", "measured"), [(5, 258), (6, 265), (7, 270), (8, 273)])
def test_nvlink_sharp_on_h100_is_as_published(members: int, measured: float) -> None:
    # All-reduces of 4 GB, GB/s of the buffer: issue 1455 of github.com/NVIDIA/nccl.
    node = cluster_of(find_cluster("dgx-h100:8"))
    found = 4 / seconds(all_reduce_s, node, group(members), 4 * GIGA)
    assert found == pytest.approx(measured, rel=0.06)


def test_an_all_to_all_sends_each_part_over_the_tiers_on_its_way(round_cluster: Callable[..., Cluster]) -> None:
    # One node: 3/4 of 1 GB leaves the device at 50 GB/s; a tree of 2 levels of 1 us.
    assert seconds(all_to_all_s, round_cluster(), group(4)) == pytest.approx(2e-6 + 15e-3 + OWN / 4)
    # Two nodes: half of it leaves the node by the device's own 5 GB/s, while 7/8 take 17.5 ms inside.
    assert seconds(all_to_all_s, round_cluster(), group(8)) == pytest.approx(12e-6 + 100e-3 + OWN / 8)
    # A device of each of four nodes: 3/4 leave.
    assert seconds(all_to_all_s, round_cluster(), group(4, 4)) == pytest.approx(20e-6 + 150e-3 + OWN / 4)


def test_what_several_of_a_node_want_enters_it_once(round_cluster: Callable[..., Cluster]) -> None:
    # Of 2 copies of 0.5 GB each to 2 nodes: the other node gets none with chance 1/4, so 0.375 GB pass at 5 GB/s,
    # rather than 0.5 GB.
    def once(others: FloatArray) -> FloatArray:
        return others * (1.0 - (others / (others + 1.0)) ** 2) / 2

    own_s = OWN / 8
    assert seconds(all_to_all_s, round_cluster(), group(8), leaving=once) == pytest.approx(12e-6 + 75e-3 + own_s)
    assert seconds(all_to_all_s, round_cluster(), group(8)) == pytest.approx(12e-6 + 100e-3 + own_s)


def test_a_message_takes_the_outermost_tier_between_neighbours(round_cluster: Callable[..., Cluster]) -> None:
    assert seconds(send_s, round_cluster(), group(4)) == pytest.approx(20e-3 + 1e-6)
    assert seconds(send_s, round_cluster(), group(2, 4)) == pytest.approx(200e-3 + 10e-6)
    assert seconds(send_s, round_cluster(), group(2, 8)) == pytest.approx(200e-3 + 10e-6)


@pytest.mark.parametrize("law", [all_gather_s, all_reduce_s, all_to_all_s, send_s])
def test_a_group_of_one_sends_nothing(law: Callable[..., Any], round_cluster: Callable[..., Cluster]) -> None:
    assert seconds(law, round_cluster(), group(1)) == 0.0


def test_groups_of_a_table_are_evaluated_one_by_one(round_cluster: Callable[..., Cluster]) -> None:
    sizes, strides = np.array([1, 4, 8, 4]), np.array([1, 1, 1, 4])
    together = all_reduce_s(round_cluster(), Group(size=sizes, stride=strides), np.full(4, GIGA))
    alone = [seconds(all_reduce_s, round_cluster(), group(*pair)) for pair in zip(sizes, strides, strict=True)]
    assert together == pytest.approx(alone, rel=1e-12)


def test_a_ring_carries_what_passes_through(round_cluster: Callable[..., Cluster]) -> None:
    ring = round_cluster(8, per_node=8, node={"topology": Topology.RING, "latency_s": 0.0})
    # Every second device: both groups pass the same links. A message to all of 8 travels 8 / 4 links on average.
    assert ring_bus_bytes_per_s(ring, group(8)) == pytest.approx([50 * GIGA])
    assert ring_bus_bytes_per_s(ring, group(4, 2)) == pytest.approx([25 * GIGA])
    assert seconds(all_to_all_s, ring, group(8)) == pytest.approx(7 / 8 / 25 + OWN / 8)
    assert seconds(all_to_all_s, ring, group(4)) == pytest.approx(3 / 4 / 50 + OWN / 4)
    assert seconds(send_s, ring, group(2, 4)) == pytest.approx(1 / 12.5)


def test_a_lone_sender_has_the_nics_that_others_leave_idle(round_cluster: Callable[..., Cluster]) -> None:
    # Nodes of four: a pipeline of 8 stages of one device has four in each, of which one sends to the other node.
    for link_devices, stages, stride, gigabytes_per_s in (
        (1, 8, 1, 5),  # a NIC each
        (2, 8, 1, 10),  # two NICs for four: one of them alone
        (8, 8, 1, 20),  # one NIC, whatever more devices of other nodes would share
        (4, 4, 2, 10),  # two ranks a stage send at once
        (4, 2, 4, 5),  # all of the node do
    ):
        cluster = round_cluster(fabric={"link_devices": link_devices, "latency_s": 0.0})
        assert seconds(send_s, cluster, group(stages, stride)) == pytest.approx(1 / gigabytes_per_s, rel=1e-4)
    inside = round_cluster(fabric={"link_devices": 4})
    assert seconds(send_s, inside, group(4)) == seconds(send_s, round_cluster(), group(4))


def test_a_mesh_sends_to_one_peer_on_one_link(round_cluster: Callable[..., Cluster]) -> None:
    mesh = round_cluster(8, per_node=8, node={"topology": Topology.MESH, "latency_s": 0.0})
    assert seconds(send_s, mesh, group(2, 4)) == pytest.approx(7 / 50)
    assert seconds(all_to_all_s, mesh, group(8)) == pytest.approx(7 / 8 / 50 + OWN / 8)
    assert seconds(all_to_all_s, mesh, group(2)) == pytest.approx(1 / 2 / (50 / 7) + OWN / 2)


@pytest.mark.parametrize(
    ("size", "stride", "one_way", "both_ways"),
    [
        (4, 1, 50, 50),  # a switch's link is full one way
        (8, 1, 5, 10),  # one NIC of a node of four, or two of them
        (4, 2, 5, 10),
        (4, 4, 5, 5),  # a lone NIC is full one way
    ],
)
def test_what_is_passed_round_leads_through_one_neighbour(
    round_cluster: Callable[..., Cluster], size: int, stride: int, one_way: float, both_ways: float
) -> None:
    cluster = round_cluster()
    crossed = {(4, 1): 3e-6, (8, 1): 6e-6 + 10e-6, (4, 2): 2e-6 + 10e-6, (4, 4): 30e-6}[(size, stride)]
    for ways, rate in ((False, one_way), (True, both_ways)):
        expected = (size - 1) / size / rate + OWN / size + crossed
        found = passed_round_s(cluster, group(size, stride), np.array([GIGA]), both_ways=ways)
        assert found == pytest.approx([expected])
    assert passed_round_s(cluster, group(1), np.array([GIGA])).tolist() == [0.0]
    # One NIC for the four: whoever leaves the node has all of it, one way or both.
    shared = round_cluster(fabric={"link_devices": 4})
    rates = {(8, 1): 20, (4, 2): 10}
    for ways in (False, True):
        expected = (size - 1) / size / rates.get((size, stride), one_way) + OWN / size + crossed
        assert passed_round_s(shared, group(size, stride), np.array([GIGA]), both_ways=ways) == pytest.approx(
            [expected]
        )


def test_a_ring_of_links_has_two_ways_round(round_cluster: Callable[..., Cluster]) -> None:
    ring = round_cluster(8, per_node=8, node={"topology": Topology.RING})
    one_way, both_ways = (
        passed_round_s(ring, group(8), np.array([GIGA]), both_ways=ways)[0] - OWN / 8 - 7e-6 for ways in (False, True)
    )
    assert (one_way, both_ways) == pytest.approx((7 / 8 / 25, 7 / 8 / 50))
