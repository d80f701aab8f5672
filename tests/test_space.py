"""The space of layouts against an independent enumerator in plain loops, and its accounts by hand."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_space import by_loops

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import Partition
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.planner.layout.choices import RULES
from meshwright.planner.layout.space import Space, space_of, taken

MakeJob = Callable[..., Job]
EXPERTS = {"experts": 8, "top_k": 2, "ffn_hidden": 96, "shared_ffn_hidden": 64, "dense_layers": 1}


def grown(space: Space) -> tuple[LayoutTable, Counter[str]]:
    """Give all layouts of a space, and what was rejected on the way."""
    twigs = space.twigs(space.branches.rows)
    leaves = space.leaves(twigs.rows)
    rejected = Counter(space.branches.rejected) + Counter(twigs.rejected) + Counter(leaves.rejected)
    return space.table(leaves.rows), rejected


def listed(space: Space) -> list[Layout]:
    table, _ = grown(space)
    return [table.row(index) for index in range(len(table))]


@pytest.mark.parametrize(
    ("devices", "asked"),
    [
        (1, {"global_batch": 4}),
        (8, {"global_batch": 12}),
        (6, {"global_batch": 6, "sequence_length": 24, "layers": 5}),
        (12, {"global_batch": 40, "sequence_length": 2048, "heads": 12, "kv_heads": 3, "ffn_hidden": 144, "layers": 3}),
        (8, {"global_batch": 8, "experts": EXPERTS}),
        (16, {"global_batch": 4, "sequence_length": 32, "experts": EXPERTS | {"ffn_hidden": 100}, "layers": 4}),
    ],
)
def test_the_space_is_that_of_plain_loops(devices: int, asked: dict[str, object], toy_job: MakeJob) -> None:
    job = toy_job(devices, **asked)
    stack = job.stack.model_copy(update={"vocabulary_parallel": devices % 8 == 0})
    job = replace(job, stack=stack)
    assert_is_that_of_loops(job)


@pytest.mark.parametrize(
    ("devices", "partitions", "stages", "asked"),
    [
        (16, ("uniform", "hybrid"), (1, 2), {"global_batch": 16, "layers": 3}),
        (24, ("uniform",), (2,), {"global_batch": 24, "heads": 6, "kv_heads": 3, "ffn_hidden": 96, "layers": 2}),
        (16, ("uniform",), (1,), {"global_batch": 16, "layers": 2, "experts": EXPERTS}),
    ],
)
def test_hybrid_stages_are_those_of_plain_loops(
    devices: int, partitions: tuple[str, ...], stages: tuple[int, ...], asked: dict[str, object], toy_job: MakeJob
) -> None:
    """Nodes of eight, of which each holds the sharded states once."""
    job = toy_job(devices, **asked)
    parts = {"partitions": tuple(map(Partition, partitions)), "hybrid_stages": stages}
    legal = assert_is_that_of_loops(replace(job, stack=job.stack.model_copy(update=parts)))
    of_nodes = {
        layout.zero_stage for layout in legal if layout.zero_shard < layout.data_parallel * layout.context_parallel
    }
    assert of_nodes == {*stages, *({3} if "hybrid" in partitions else set())}


def test_instances_of_the_optimizer_hold_all_experts(toy_job: MakeJob) -> None:
    """Eight experts over sixteen devices in two nodes: a node holds them all, unless two ranks share each of them."""
    job = toy_job(16, global_batch=16, layers=2, experts=EXPERTS)
    space = space_of(replace(job, stack=job.stack.model_copy(update={"hybrid_stages": (1,)})))
    found = {
        (layout.tensor_parallel, layout.expert_parallel, layout.expert_tensor_parallel)
        for layout in listed(space)
        if layout.zero_shard < layout.data_parallel * layout.context_parallel
    }
    assert {(1, 1, 1), (1, 8, 1), (2, 8, 1), (2, 4, 2)} <= found
    assert (2, 8, 2) not in found
    assert grown(space)[1]["instances of the optimizer do not hold all experts each"] > 0


def assert_is_that_of_loops(job: Job) -> set[Layout]:
    """Hold a space to the plain loops, and give its layouts."""
    candidates, legal = by_loops(job)
    space = space_of(job)
    layouts = listed(space)
    assert len(layouts) == len(set(layouts))
    assert set(layouts) == legal
    assert space.candidates == candidates
    assert space.candidates == len(layouts) + grown(space)[1].total()
    return legal


def test_accounts_of_two_devices_by_hand(toy_job: MakeJob) -> None:
    """Two sequences, eight layers. Micro-batches 1 and 2, four recomputes.

    tensor 2: 2 sequence parallelisms; context 2: 5 methods and 4 ZeRO stages; pipeline 2: 9 schedules and 8 interleaved
    ones; data 2: 4 ZeRO stages: (2 + 5 x 4 + 17 x 2 + 4) x 2 x 4 = 480, where the 17 come with a shared vocabulary too.
    Two context ranks can't be a hybrid: 4 x 2 x 4, and the software has no ring both ways: as many. Interleaving with 5
    chunks or more needs more than 8 layers: 5 x 2 x 2 x 4; with 2 to 4 chunks and one micro-batch it can't fill two
    stages: 3 x 2 x 4, nor can the five zero-bubble schedules: 5 x 2 x 4, nor two micro-batches the two of DualPipe:
    2 x 2 x 2 x 4. Half of the 96 that are left share the vocabulary, which the software doesn't. Two sequences are more
    than half a batch of two: 4 x 4. Two stages of 4 chunks have one layer each, none or all of which is recomputed.
    """
    space = space_of(toy_job(2, global_batch=2))
    assert space.candidates == 480
    table, rejected = grown(space)
    assert rejected == {
        "the training software has no such method of context parallelism": 32,
        "no part of the context ranks can exchange heads in a node, or all of them can": 32,
        "there are more pipeline chunks than layers": 80,
        "interleaving needs micro-batches in multiples of the pipeline stages": 24,
        "a zero-bubble schedule needs as many micro-batches as stages": 40,
        "DualPipe needs two micro-batches a stage, an even number of them": 32,
        "the training software does not share the vocabulary over stages": 48,
        "chunks of one layer recompute it or don't": 1,
        "the micro-batch does not divide the batch of a replica": 16,
    }
    assert len(table) == 175


def test_a_job_that_no_layout_is_legal_for(toy_job: MakeJob) -> None:
    space = space_of(toy_job(7, global_batch=1, layers=4))
    table, rejected = grown(space)
    assert len(table) == 0
    assert space.candidates == rejected.total()
    assert set(rejected) == {
        "data parallelism does not divide the global batch",
        "tensor parallelism does not divide the attention heads",
        "the sequence does not split into 2 x context parallelism equal parts",
        "there are more pipeline stages than layers",
    }


def test_reasons_are_distinct() -> None:
    assert len({rule.reason for rule in RULES}) == len(RULES)


@settings(max_examples=60, deadline=None)
@given(
    devices=st.integers(1, 96),
    global_batch=st.integers(1, 200),
    sequence_length=st.sampled_from([1, 6, 128, 384, 4096]),
    layers=st.integers(2, 40),
    heads=st.sampled_from([(1, 1), (8, 2), (12, 12), (64, 8)]),
    mixture=st.booleans(),
)
def test_every_candidate_is_legal_or_rejected_once(
    toy_job: MakeJob,
    *,
    devices: int,
    global_batch: int,
    sequence_length: int,
    layers: int,
    heads: tuple[int, int],
    mixture: bool,
) -> None:
    job = toy_job(
        devices,
        global_batch=global_batch,
        sequence_length=sequence_length,
        layers=layers,
        heads=heads[0],
        kv_heads=heads[1],
        experts=EXPERTS if mixture else None,
    )
    space = space_of(job)
    table, rejected = grown(space)
    assert space.candidates == len(table) + rejected.total()
    assert min(rejected.values(), default=1) > 0
    world = table.tensor_parallel * table.context_parallel * table.pipeline_parallel * table.data_parallel
    assert (world == devices).all()
    assert (global_batch % (table.data_parallel * table.micro_batch) == 0).all()


@settings(max_examples=20, deadline=None)
@given(picked=st.sets(st.integers(0, 100), min_size=1, max_size=8))
def test_parts_of_a_space_are_the_same_alone(toy_job: MakeJob, picked: set[int]) -> None:
    space = space_of(toy_job(4, global_batch=4))
    branches = np.array(sorted(number % len(space.branches) for number in picked))
    twigs = space.twigs(taken(space.branches.rows, branches))
    leaves = space.leaves(twigs.rows)
    every = space.twigs(space.branches.rows)
    all_leaves = space.leaves(every.rows)
    of = np.flatnonzero(np.isin(every.parent[all_leaves.parent], branches))
    alone, among = space.table(leaves.rows), space.table(taken(all_leaves.rows, of))
    assert {alone.row(row) for row in range(len(alone))} == {among.row(row) for row in range(len(among))}
    below = int(space.below_branches(taken(space.branches.rows, np.unique(branches))).sum())
    assert below == int(space.below_twigs(space.twigs(taken(space.branches.rows, np.unique(branches))).rows).sum())


def test_a_large_space_is_enumerated_without_much_memory(toy_job: MakeJob) -> None:
    """A mixture on 2,048 devices: tens of millions of candidates, a few hundred thousand rows."""
    space = space_of(
        toy_job(2048, global_batch=15360, layers=61, heads=128, kv_heads=128, experts=EXPERTS | {"experts": 256})
    )
    assert space.candidates > 10**7
    assert sum(column.nbytes for column in space.branches.rows.values()) < 2**24


@pytest.mark.parametrize(
    ("axis", "column", "single"),
    [
        ("tensor", "tensor_parallel", 1),
        ("sequence", "sequence_parallel", 0),
        ("context", "context_parallel", 1),
        ("pipeline", "pipeline_parallel", 1),
        ("expert", "expert_parallel", 1),
    ],
)
def test_what_the_stack_lacks_is_not_used(axis: str, column: str, single: int, toy_job: MakeJob) -> None:
    job = toy_job(8, global_batch=8, experts=EXPERTS)
    assert {int(getattr(layout, column)) for layout in listed(space_of(job))} > {single}
    axes = tuple(other for other in job.stack.axes if other != axis)
    without = space_of(replace(job, stack=job.stack.model_copy(update={"axes": axes})))
    assert {int(getattr(layout, column)) for layout in listed(without)} == {single}
    table, rejected = grown(without)
    assert rejected[f"the training software has no {axis} parallelism"] > 0
    assert without.candidates == len(table) + rejected.total()


def methods_of(job: Job) -> set[tuple[int, int, str, int]]:
    return {
        (layout.tensor_parallel, layout.context_parallel, str(layout.context_method), layout.ulysses_parallel)
        for layout in listed(space_of(job))
        if layout.context_parallel > 1
    }


def test_heads_say_which_methods_of_context_parallelism_there_are(toy_job: MakeJob) -> None:
    """Nodes of 8, 16 heads, 4 key heads: Ulysses over 4 with whole heads; over more only where key heads are repeated.

    The hybrid is for what Ulysses alone can't do in a node: over 8 and 16 ranks, and beside tensor parallelism.
    """
    job = toy_job(16, global_batch=16, heads=16, kv_heads=4, sequence_length=4096)
    alone = {(tensor, context, method, 1) for tensor in (1, 2, 4, 8, 16) for context in (2, 4, 8, 16)
             for method in ("ring", "all-gather") if tensor * context <= 16}  # fmt: skip
    found = methods_of(job)
    assert alone <= found
    whole = {(1, 2), (1, 4), (2, 2)}
    assert found - alone == {(tensor, context, "ulysses", 1) for tensor, context in whole} | {
        (1, 8, "hybrid", 4),
        (1, 16, "hybrid", 4),
        (2, 4, "hybrid", 2),
        (2, 8, "hybrid", 2),
    }
    repeating = replace(job, stack=job.stack.model_copy(update={"repeats_key_values": True}))
    more = {(1, 8), (1, 16), (2, 4), (2, 8), (4, 2), (4, 4), (8, 2)} | whole
    assert methods_of(repeating) - alone == {(tensor, context, "ulysses", 1) for tensor, context in more} | {
        (1, 16, "hybrid", 8),
        (2, 8, "hybrid", 4),
        (4, 4, "hybrid", 2),
    }


def test_only_the_stack_s_methods_of_context_parallelism_are_used(toy_job: MakeJob) -> None:
    job = toy_job(8, global_batch=8)
    stack = job.stack.model_copy(update={"context_methods": (ContextMethod.BIDIRECTIONAL_RING,)})
    assert {method for *_, method, _ in methods_of(replace(job, stack=stack))} == {"bidirectional-ring"}


def test_only_the_stack_s_schedules_are_used(toy_job: MakeJob) -> None:
    job = toy_job(4, global_batch=8)
    stack = job.stack.model_copy(update={"schedules": (Schedule.ONE_F_ONE_B,)})
    space = space_of(replace(job, stack=stack))
    layouts = listed(space)
    assert {layout.schedule for layout in layouts} == {Schedule.ONE_F_ONE_B}
    assert max(layout.pipeline_parallel for layout in layouts) == 4
    assert grown(space)[1]["the training software does not run the pipeline schedule"] > 0


def shards_of(layout: Layout) -> tuple[int, int, int, int]:
    shards = layout.shards
    return layout.zero_shard, shards["gradient_shard"], shards["parameter_shard"], shards["backward_shard"]


def with_partitions(job: Job, *partitions: Partition) -> Job:
    return replace(job, stack=job.stack.model_copy(update={"partitions": partitions, "hybrid_stages": ()}))


def test_partitions_of_the_stack_are_offered_across_nodes(toy_job: MakeJob) -> None:
    # 32 devices in nodes of 8: all of the replicas, a node's, and both in turn.
    job = with_partitions(toy_job(32, global_batch=32), *Partition)
    space = space_of(job)
    layouts = listed(space)
    assert len(layouts) == len(set(layouts))
    assert space.candidates == len(layouts) + grown(space)[1].total()

    def found(tensor: int, data: int, order: str = "tp-cp-dp-pp") -> set[tuple[int, int, int, int]]:
        return {
            shards_of(layout)
            for layout in layouts
            if (layout.zero_stage, layout.context_parallel, layout.axis_order) == (3, 1, order)
            if (layout.tensor_parallel, layout.data_parallel) == (tensor, data)
        }

    assert found(1, 32) == {(32, 32, 32, 32), (8, 8, 8, 8), (32, 32, 32, 8), (32, 8, 8, 8)}
    assert found(2, 16) == {(16, 16, 16, 16), (4, 4, 4, 4), (16, 16, 16, 4), (16, 4, 4, 4)}
    # Where a node holds one copy, or all replicas lie in one, there is nothing to choose.
    assert found(8, 4) == {(4, 4, 4, 4)}
    assert found(1, 8) == {(8, 8, 8, 8)}
    # Between four stages that lie in a node there are two of the replicas; between eight, one.
    assert found(1, 8, "tp-cp-pp-dp") == {(8, 8, 8, 8), (2, 2, 2, 2), (8, 8, 8, 2), (8, 2, 2, 2)}
    assert found(1, 4, "tp-cp-pp-dp") == {(4, 4, 4, 4)}
    assert {shards_of(layout) for layout in layouts if layout.zero_stage < 3 and layout.data_parallel == 32} == {
        (32,) * 4
    }


def test_data_is_outermost_where_that_brings_stages_nearer(toy_job: MakeJob) -> None:
    """Nodes of 8: whole replicas of 2, 4 or 8 devices lie in one; those of 3 don't, nor of 16."""
    for devices, expected in (
        (8, set()),
        (16, {(1, 2), (2, 2), (4, 2), (1, 4), (2, 4), (1, 8)}),
        (24, {(1, 2), (2, 2), (4, 2), (1, 4), (2, 4), (1, 8)}),
    ):
        layouts = listed(space_of(toy_job(devices, global_batch=24)))
        outermost = [layout for layout in layouts if layout.axis_order == "tp-cp-pp-dp"]
        whole = {layout for layout in outermost if layout.zero_shard in (1, layout.data_parallel)}
        assert {(layout.tensor_parallel, layout.pipeline_parallel) for layout in outermost} == expected
        assert all(layout.context_parallel == 1 < layout.data_parallel for layout in outermost)
        assert {replace(layout, axis_order=AxisOrder.PIPELINE_OUTERMOST) for layout in whole} <= set(layouts)


def test_experts_have_the_replicas_of_the_rest_where_data_is_outermost(toy_job: MakeJob) -> None:
    layouts = listed(space_of(toy_job(16, global_batch=16, experts=EXPERTS)))
    found = {
        (layout.tensor_parallel, layout.expert_parallel, layout.expert_tensor_parallel)
        for layout in layouts
        if layout.axis_order == "tp-cp-pp-dp"
    }
    assert found == {(1, 1, 1), (2, 1, 2), (2, 2, 1), (4, 1, 4), (4, 4, 1)}


def test_only_the_launcher_s_orders_are_used(toy_job: MakeJob) -> None:
    job = toy_job(16, global_batch=16)
    usual = replace(job, stack=job.stack.model_copy(update={"axis_orders": (AxisOrder.PIPELINE_OUTERMOST,)}))
    both, one = space_of(job), space_of(usual)
    assert {layout for layout in listed(both) if layout.axis_order == "tp-cp-dp-pp"} == set(listed(one))
    assert len(listed(one)) < len(listed(both))
    assert one.candidates == both.candidates
    assert grown(one)[1]["the training software does not number ranks in that order"] > 0


def test_a_card_is_a_level_of_its_own(toy_job: MakeJob) -> None:
    job = with_partitions(toy_job(32, global_batch=32), Partition.UNIFORM, Partition.HIERARCHICAL)
    node, fabric = job.cluster.tiers
    card = replace(node, name="card", group=2)
    cards = replace(job, cluster=replace(job.cluster, tiers=(card, node, fabric)))
    layouts = [layout for layout in listed(space_of(cards)) if layout.zero_stage == 3]
    assert {shards_of(layout) for layout in layouts if layout.data_parallel == 32} == {(32,) * 4, (32, 8, 2, 2)}


def test_what_the_stack_does_not_shard_by_is_not_offered(toy_job: MakeJob) -> None:
    plain, hybrid = (
        with_partitions(toy_job(32, global_batch=32), Partition.UNIFORM),
        with_partitions(toy_job(32, global_batch=32), Partition.UNIFORM, Partition.HYBRID),
    )
    assert {
        layout.zero_shard == layout.data_parallel * layout.context_parallel for layout in listed(space_of(plain))
    } == {True}
    more = set(listed(space_of(hybrid))) - set(listed(space_of(plain)))
    assert {layout.zero_stage for layout in more} == {3}
    assert all(layout.zero_shard < layout.data_parallel * layout.context_parallel for layout in more)
