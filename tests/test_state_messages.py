"""What ranks that share a state send one another, by hand: two nodes of four, 50 GB/s inside, 5 GB/s a NIC between."""

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.state import StageParameters
from meshwright.costmodels.state_messages import StateMessages, state_messages

MILLION = 1e6
NODE_BUS, FABRIC_BUS, NIC = 50e9, 20e9, 5e9
"""Of four devices of a node, of two nodes of four with all their NICs, and of one NIC."""
OWN = 0.4 / NODE_BUS
"""Seconds a byte to copy what a member has already."""

SECONDS = tuple(item.name for item in fields(StateMessages) if item.name.endswith("_s"))


def messages(
    job: Job, layout: Layout, *, dense: float = MILLION, experts: float = 0.0, layers: int = 1
) -> dict[str, float]:
    """Give the messages of a stage by name, those that aren't sent left out."""
    counted = StageParameters(dense=np.array([[dense]]), experts=np.array([[experts]]))
    found = state_messages(job, LayoutTable.of([layout]), counted, np.array([[layers]]))
    return {name: float(getattr(found, name)[0, 0]) for name in SECONDS if getattr(found, name)[0, 0] > 0}


def expected(**seconds: float) -> object:
    return pytest.approx(seconds, rel=1e-12)


REDUCED_S = 4e6 * (7 / 8 / FABRIC_BUS + OWN / 8) + 16e-6
GATHERED_S = 2e6 * (7 / 8 / FABRIC_BUS + OWN / 8) + 16e-6
"""Of a million gradients of 4 bytes, and parameters of 2: 7/8 of them, in 6 steps of 1 us and 1 of 10 us."""


def test_gradients_are_all_reduced_without_zero(round_job: Callable[..., Job]) -> None:
    # Twice 7/8 of 4 MB; up and down 3 steps of a chain in a node, and one between nodes.
    found = messages(round_job(), Layout(data_parallel=8))
    assert found == expected(step_reduction_s=4e6 * (2 * 7 / 8 / FABRIC_BUS + OWN / 8) + 26e-6)


@pytest.mark.parametrize(
    ("stage", "sent"),
    [
        (1, {"step_reduction_s": REDUCED_S, "step_gather_s": GATHERED_S}),
        (2, {"reduction_s": REDUCED_S, "step_gather_s": GATHERED_S}),
        (3, {"reduction_s": REDUCED_S, "forward_gather_s": GATHERED_S, "backward_gather_s": GATHERED_S}),
    ],
)
def test_each_zero_stage_sends_what_it_shards(
    round_job: Callable[..., Job], stage: int, sent: dict[str, float]
) -> None:
    assert messages(round_job(), Layout(data_parallel=8, zero_stage=stage, zero_shard=8)) == expected(**sent)


def test_gradients_on_the_wire_may_be_narrower(round_job: Callable[..., Job]) -> None:
    layout = Layout(data_parallel=8, zero_stage=1, zero_shard=8)
    found = messages(round_job(stack={"reduce_bytes": 2}), layout)
    assert found == expected(step_reduction_s=GATHERED_S, step_gather_s=GATHERED_S)


def test_hybrid_shards_reduce_in_two_hops(round_job: Callable[..., Job]) -> None:
    # Each micro-batch within the node; once a step the quarter of each of its devices with the other node, by 5 GB/s.
    found = messages(round_job(), Layout(data_parallel=8, zero_stage=3, zero_shard=4))
    inside_s = 3 / 4 / NODE_BUS + OWN / 4
    assert found == expected(
        reduction_s=4e6 * inside_s + 3e-6,
        forward_gather_s=2e6 * inside_s + 3e-6,
        backward_gather_s=2e6 * inside_s + 3e-6,
        step_reduction_s=1e6 * (2 * 1 / 2 / NIC + OWN / 2) + 20e-6,
    )


def test_instances_of_the_optimizer_reduce_in_two_hops_once_a_step(round_job: Callable[..., Job]) -> None:
    # ZeRO-1 over the four of a node: nothing each micro-batch; at its end a reduction and a gather inside the node, and
    # between them a quarter is added up with the other node, by 5 GB/s.
    inside_s = 3 / 4 / NODE_BUS + OWN / 4
    assert messages(round_job(), Layout(data_parallel=8, zero_stage=1, zero_shard=4)) == expected(
        step_reduction_s=4e6 * inside_s + 3e-6 + 1e6 * (2 * 1 / 2 / NIC + OWN / 2) + 20e-6,
        step_gather_s=2e6 * inside_s + 3e-6,
    )


def test_three_levels_send_each_part_within_its_own(round_job: Callable[..., Job]) -> None:
    # Of 16 ranks on 4 nodes, parameters over 2, gradients over 4, optimizer states over all: gathers and reductions of
    # a micro-batch stay in the node; once a step quarters of gradients are reduced over four nodes, and from sixteenths
    # of parameters halves are gathered over 8 ranks, two apart, of which each node has 2.
    layout = Layout(data_parallel=16, zero_stage=3, zero_shard=16, gradient_shard=4, parameter_shard=2)
    pair_s = 2e6 * (1 / 2 / NODE_BUS + OWN / 2) + 1e-6
    assert messages(round_job(), layout) == expected(
        forward_gather_s=pair_s,
        backward_gather_s=pair_s,
        reduction_s=4e6 * (3 / 4 / NODE_BUS + OWN / 4) + 3e-6,
        step_reduction_s=1e6 * (3 / 4 / NIC + OWN / 4) + 30e-6,
        step_gather_s=1e6 * (7 / 8 / (2 * NIC) + OWN / 8) + 4e-6 + 30e-6,
    )


def test_a_secondary_partition_gathers_backward_inside_the_node(round_job: Callable[..., Job]) -> None:
    found = messages(round_job(), Layout(data_parallel=8, zero_stage=3, zero_shard=8, backward_shard=4))
    assert found == expected(
        reduction_s=REDUCED_S,
        forward_gather_s=GATHERED_S,
        backward_gather_s=2e6 * (3 / 4 / NODE_BUS + OWN / 4) + 3e-6,
    )
    whole = messages(round_job(), Layout(data_parallel=8, zero_stage=3, zero_shard=8, backward_shard=1))
    assert whole == expected(reduction_s=REDUCED_S, forward_gather_s=GATHERED_S)


def test_held_whole_within_a_step_zero_3_sends_what_zero_1_does(round_job: Callable[..., Job]) -> None:
    held = Layout(data_parallel=8, zero_stage=3, zero_shard=8, gradient_shard=1, parameter_shard=1)
    assert messages(round_job(), held) == messages(round_job(), Layout(data_parallel=8, zero_stage=1, zero_shard=8))


def test_experts_are_reduced_over_their_copies(round_job: Callable[..., Job]) -> None:
    # 8 replicas, experts over 4: 2 copies, one a node, 5 GB/s each.
    layout = Layout(data_parallel=8, expert_parallel=4)
    found = messages(round_job(), layout, dense=0.0, experts=MILLION)
    assert found == expected(step_reduction_s=4e6 * (2 / 2 / NIC + OWN / 2) + 20e-6)


def test_one_replica_sends_nothing(round_job: Callable[..., Job]) -> None:
    assert messages(round_job(), Layout(tensor_parallel=4)) == {}


def test_layers_and_buckets_are_messages_of_their_own(round_job: Callable[..., Job]) -> None:
    # ZeRO-3 sends a message a layer; others fill buckets of 40 million parameters where they are overlapped.
    overlap = {"overlap_gradients": True, "overlap_parameters": True}
    layered = Layout(data_parallel=8, zero_stage=3, zero_shard=8)
    found = messages(round_job(), layered, layers=5)
    assert found["forward_gather_s"] == pytest.approx(GATHERED_S + 4 * 16e-6)
    whole = Layout(data_parallel=8, zero_stage=1, zero_shard=8)
    for stack, count, latencies in (({}, 100e6, 1), (overlap, 100e6, 2.5), (overlap, 10e6, 1), (overlap, 1e9, 5)):
        gather_s = messages(round_job(stack=stack), whole, dense=count, layers=5)["step_gather_s"]
        bulk_s = 2 * count * (7 / 8 / FABRIC_BUS + OWN / 8)
        assert gather_s == pytest.approx(bulk_s + latencies * 16e-6)


def test_buckets_grow_with_the_ranks(round_job: Callable[..., Job]) -> None:
    # A million a rank: at 100 ranks a bucket is 100 million.
    counted = StageParameters(dense=np.array([[400e6]]), experts=np.zeros((1, 1)))
    buckets = [
        float(state_messages(round_job(), LayoutTable.of([layout]), counted, np.array([[80]])).buckets[0, 0])
        for layout in (Layout(data_parallel=8), Layout(data_parallel=100))
    ]
    assert buckets == [10.0, 4.0]


PLUS_PLUS = {"gather_bytes": 1, "quantised_reduction": True, "reduce_bytes": 2}


def test_zero_plus_plus_sends_a_quarter_between_nodes(round_job: Callable[..., Job]) -> None:
    """Wang et al. 2023 (arXiv 2306.10209), table 1: of 3 M between nodes qwZ leaves 2, hpZ 2, qgZ 2.25, all 0.75.

    Nodes so fast inside, and memory so fast, that only what passes between 16 nodes of 4 takes time.
    """

    def between_nodes(**changes: object) -> float:
        shard = {"backward_shard": 4} if changes.pop("secondary", False) else {}
        layout = Layout(data_parallel=64, zero_stage=3, zero_shard=64, **shard)  # type: ignore[arg-type]
        job = round_job(
            stack={"reduce_bytes": 2} | changes,
            cluster={
                "devices": 64,
                "device": {"memory_bandwidth_bytes_per_s": 1e30},
                "node": {"bandwidth_bytes_per_s": 1e30, "latency_s": 0.0},
                "fabric": {"latency_s": 0.0},
            },
        )
        # A byte a parameter of every device of a node by all its NICs, but for what is in the node already.
        return sum(messages(job, layout).values()) / (2 * MILLION * 15 / 16 / FABRIC_BUS)

    whole = 64 / 63 * 15 / 16  # A ring keeps a 64th back, nodes that send to nodes a 16th.
    assert between_nodes() * whole == pytest.approx(3)
    assert between_nodes(gather_bytes=1) * whole == pytest.approx(2)
    assert between_nodes(secondary=True) * whole == pytest.approx(2)
    assert between_nodes(quantised_reduction=True) == pytest.approx(2 / whole + 0.25)
    assert between_nodes(gather_bytes=1, secondary=True) * whole == pytest.approx(1.5)
    everything = between_nodes(gather_bytes=1, secondary=True, quantised_reduction=True)
    assert everything == pytest.approx(0.5 / whole + 0.25)
    assert everything == pytest.approx(0.75, rel=0.05)


def test_quantisation_takes_memory_bandwidth(round_job: Callable[..., Job]) -> None:
    # At 500 GB/s: of gathered parameters 3 bytes each to read and write, and an eighth of that for the own shard; of
    # gradients 3 bytes in the node, and a quarter of that between nodes.
    layout = Layout(data_parallel=8, zero_stage=3, zero_shard=8)
    found = messages(round_job(stack=PLUS_PLUS), layout)
    gathered_s = 1e6 * (7 / 8 / FABRIC_BUS + OWN / 8) + 16e-6 + 3e6 * 9 / 8 / 500e9
    inside_s = 0.5e6 * (3 / 4 / NODE_BUS + OWN / 4) + 2e-6 + 3e6 / 500e9
    between_s = 0.125e6 * (1 / 2 / NIC + OWN / 2) + 10e-6 + 0.75e6 / 500e9
    assert found == expected(
        forward_gather_s=gathered_s, backward_gather_s=gathered_s, reduction_s=inside_s + between_s
    )
