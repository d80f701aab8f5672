"""Context parallelism by hand: 250 tokens a rank of 4, keys and values of 2 x 1,024 two-byte values each.

Nodes of 4 move 50 GB/s a device in steps of 1 us; between them 5 GB/s, or less, in steps of 10 us.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from meshwright.catalog.cluster_entry import Topology
from meshwright.catalog.context_method import ContextMethod
from meshwright.costmodels.attention import core_time_s, key_value_bytes, ring_blocks
from meshwright.costmodels.context_messages import context_communication_s, context_launches, gathered_bytes
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable, Recompute
from meshwright.costmodels.predict import predict_memory

MakeJob = Callable[..., Job]
OWN = 4 * 250 * 1024
"""Bytes of a rank's keys and values, of 4 ranks."""
COPY = 0.4 / 50e9
RING_AND_GATHER = (ContextMethod.RING, ContextMethod.ALL_GATHER)
HYBRID = Layout(context_parallel=8, context_method=ContextMethod.HYBRID, ulysses_parallel=4)


def by(method: ContextMethod, degree: int = 4) -> Layout:
    return Layout(context_parallel=degree, context_method=method)


def messages_s(job: Job, layout: Layout, *, core_s: float = 0.0) -> tuple[float, float]:
    """Give the exposed seconds, forward and backward, beside an attention core of so many seconds each way."""
    table = LayoutTable.of([layout])
    attention = job.model.layers[0].attention
    core, _ = core_time_s(job, attention, table)
    forward, backward = context_communication_s(job, attention, table, (0 * core + core_s, 0 * core + core_s))
    return float(forward[0]), float(backward[0])


def test_gathered_keys_and_values_hide_nowhere(round_job: MakeJob) -> None:
    # Three other ranks' keys, then their values; backward gathered again, and gradients scattered.
    once = 3 * OWN / 50e9 + COPY * OWN + 2 * 3e-6
    assert messages_s(round_job(), by(ContextMethod.ALL_GATHER)) == pytest.approx((once, 2 * once))
    assert messages_s(round_job(), by(ContextMethod.ALL_GATHER), core_s=1.0) == pytest.approx((once, 2 * once))
    assert messages_s(round_job(), by(ContextMethod.RING), core_s=1.0) == (0.0, 0.0)


def test_rings_both_ways_use_both_links_of_a_mesh_and_one_of_a_switch(round_job: MakeJob) -> None:
    switch, mesh = round_job(), round_job(cluster={"node": {"topology": Topology.MESH}})
    rest = COPY * OWN + 3e-6
    # Of 50 GB/s to three peers one has a third.
    for job, one_way, both_ways in ((switch, 50e9, 50e9), (mesh, 50e9 / 3, 100e9 / 3)):
        for method, rate in ((ContextMethod.RING, one_way), (ContextMethod.BIDIRECTIONAL_RING, both_ways)):
            assert messages_s(job, by(method))[0] == pytest.approx(3 * OWN / rate + rest)


def test_a_hybrid_exchanges_heads_in_a_node_and_rings_between_nodes(round_job: MakeJob) -> None:
    # 125 tokens a rank: three quarters of queries, keys, values and outputs go out, in four trees of 2 us; one other
    # rank's keys and values of as many tokens and a quarter of the heads come in over one NIC.
    exchanged = 0.75 * 2 * OWN / 2 / 50e9 + COPY * 2 * OWN / 2 / 4 + 4 * 2e-6
    ring = OWN / 2 / 5e9 + COPY * OWN / 2 + 10e-6
    job = round_job()
    assert messages_s(job, HYBRID) == pytest.approx((exchanged + ring, exchanged + 2 * ring))
    assert messages_s(job, HYBRID, core_s=1.0) == pytest.approx((exchanged, exchanged))


def test_blocks_and_launches_of_each_method(round_job: MakeJob) -> None:
    layouts = LayoutTable.of([Layout(), *(by(method) for method in ContextMethod if method != "hybrid"), HYBRID])
    job = round_job()
    assert ring_blocks(job, job.model.layers[0].attention, layouts).tolist() == [1, 4, 4, 1, 1, 2]
    # Blocks go one way or two; keys and values are gathered, queries, keys, values and outputs exchanged.
    assert context_launches(job.model.layers[0].attention, layouts).tolist() == [0, 4, 8, 2, 4, 2 + 4]


def test_fewer_key_heads_than_ulysses_ranks_are_repeated(round_job: MakeJob) -> None:
    job = round_job(model={"kv_heads": 2})
    attention = job.model.layers[0].attention
    head_bytes = 2 * 250 * 2 * attention.head_dim
    layouts = LayoutTable.of([by(ContextMethod.RING), by(ContextMethod.ULYSSES), by(ContextMethod.ALL_GATHER)])
    assert key_value_bytes(job, attention, layouts) == pytest.approx([2 * head_bytes, 4 * head_bytes, 2 * head_bytes])


def test_gathered_keys_and_values_are_there_with_their_gradients(round_job: MakeJob) -> None:
    job = round_job()
    layouts = LayoutTable.of([by(method) for method in RING_AND_GATHER])
    attention = job.model.layers[0].attention
    assert gathered_bytes(job, attention, layouts).tolist() == [0, 2 * 4 * OWN]
    # Micro-batches large enough to outweigh the optimizer's step, and what is recomputed outweighs the loss.
    small = round_job(model={"vocab": 64})
    large = LayoutTable.of(
        [replace(by(method), micro_batch=64, recompute=Recompute.FULL) for method in RING_AND_GATHER]
    )
    ring, gathered = predict_memory(small, large).allocated_bytes
    assert gathered - ring == pytest.approx(64 * 2 * 4 * OWN)
