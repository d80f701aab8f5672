"""The search of mixed clusters against every way that there is, and against laws that it has to keep."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from mixed_brute_force import best_across_s, best_apart_s

from meshwright.catalog.mixed_entry import MixedClusterEntry
from meshwright.catalog.mixed_lookup import find_mixed
from meshwright.catalog.model_entry import ModelEntry
from meshwright.costmodels.island_links import Across, Edge, exchange_of, widest_tree
from meshwright.costmodels.layout import LayoutTable
from meshwright.costmodels.predict import predict_time
from meshwright.hardware.islands import islands_of
from meshwright.planner.mixed.chain_configs import configurations
from meshwright.planner.mixed.chain_cut import best_chain_cut
from meshwright.planner.mixed.chain_members import members_of
from meshwright.planner.mixed.chain_weights import weighted_bound_s
from meshwright.planner.mixed.laws import Laws, best_shares
from meshwright.planner.mixed.planning import asked_of, mixed_inputs
from meshwright.planner.mixed.question import Mixed
from meshwright.planner.mixed.search import search_mixed
from meshwright.planner.mixed.shapes import shapes_of
from meshwright.planner.verification.mixed.passes import one_forward_one_backward

JOB = {"sequence_length": 2048, "precision": "bf16", "objective": "time", "top": 0, "memory_headroom": 0.05}


@pytest.fixture
def small(toy_model: Callable[..., ModelEntry]) -> Callable[..., Mixed]:
    """Give a maker of small questions on A100s and H100s."""

    def make(
        cluster: str = "selene:2+dgx-h100:2",
        *,
        link: str = "100 Gb/s, 1 ms",
        batch: int = 12,
        limits: dict[str, object] | None = None,
        **model: object,
    ) -> Mixed:
        entry = toy_model(**{"layers": 4, "hidden": 2048, "heads": 16, "ffn_hidden": 8192} | model)
        inputs = mixed_inputs(entry, cluster, links=[link], global_batch=batch, limits=limits or {}, **JOB)
        return asked_of(inputs)

    return make


@pytest.mark.parametrize(
    ("link", "batch", "limits"),
    [
        ("400 Gb/s, 0.01 ms", 12, {}),
        ("40 Gb/s, 1 ms", 24, {"max": {"context_parallel": 1}}),
        ("4 Gb/s, 1 ms", 16, {"max": {"context_parallel": 1}, "forbid": {"zero_stage": [3]}}),
    ],
)
def test_the_step_is_that_of_brute_force(
    small: Callable[..., Mixed], link: str, batch: int, limits: dict[str, object]
) -> None:
    asked = small(link=link, batch=batch, limits=limits, layers=3)
    found = search_mixed(asked)
    expected = min(best_apart_s(asked), best_across_s(asked))
    assert found.best.step_time_s == pytest.approx(expected, rel=1e-6)
    assert found.bound_s <= expected * (1 + 1e-6)


def test_pipelines_are_cut_as_brute_force_cuts_them(small: Callable[..., Mixed]) -> None:
    asked = small(link="20 Gb/s, 1 ms", batch=16, layers=6, limits={"max": {"context_parallel": 1}})
    (link_,) = asked.islands.links
    best, known = np.inf, dict[Any, Any]()
    members = members_of(asked.jobs, asked.limits, asked.memory_limits_bytes)
    for chain in ((0, 1), (1, 0)):
        limits = [asked.memory_limits_bytes[island] for island in chain]
        own = [members[island] for island in chain]
        for found in configurations(own, [link_], share=16.0, below_s=np.inf):
            for row in range(len(found)):
                total = -(-16 // int(found.sequences[row]))
                solved = best_chain_cut(found, row, total=total, memory_limits_bytes=limits, below_s=1e6, known=known)
                assert solved.cut is not None
                totals = np.ceil(16 / found.sequences)
                bound_s = float(found.bound_s(totals)[row])
                assert bound_s <= solved.cut.step_time_s * (1 + 1e-9)
                weighted_s = float(weighted_bound_s([found.weighed(np.array([row]), totals)])[0])
                assert weighted_s <= solved.cut.step_time_s * (1 + 1e-9)
                best = min(best, solved.cut.step_time_s)
    assert best == pytest.approx(best_across_s(asked), rel=1e-6)


@pytest.mark.parametrize("share", [0.04, 0.06, 0.1])
def test_bounds_hold_where_memory_is_short(small: Callable[..., Mixed], share: float) -> None:
    """Configurations that are left out for memory have no cut that fits, and the others none below their bounds."""
    asked = small(link="100 Gb/s, 1 ms", batch=16, layers=6, limits={"max": {"context_parallel": 1}})
    limits = [round(share * limit) for limit in asked.memory_limits_bytes]
    (link,) = asked.islands.links
    best = []
    for given in (asked.memory_limits_bytes, limits):
        steps_s, known = [np.inf], dict[Any, Any]()
        for found in configurations(members_of(asked.jobs, asked.limits, given), [link], share=16.0, below_s=np.inf):
            totals = np.ceil(16 / found.sequences)
            every = np.arange(len(found))
            bounds_s = np.maximum(found.bound_s(totals), weighted_bound_s([found.weighed(every, totals)]))
            for row in range(len(found)):
                solved = best_chain_cut(
                    found, row, total=int(totals[row]), memory_limits_bytes=limits, below_s=1e6, known=known
                )
                if solved.cut is not None:
                    steps_s.append(solved.cut.step_time_s)
                    assert bounds_s[row] <= solved.cut.step_time_s * (1 + 1e-9)
        best.append(min(steps_s))
    assert best[0] == pytest.approx(best[1])
    assert np.isfinite(best[1]) == (share > 0.04)


def test_weights_of_chains_hold_for_every_order_of_events() -> None:
    """Each chain of passes that a bound weighs is no longer than the simulated step, whatever the passes take."""
    draw = np.random.default_rng(0)
    for _ in range(300):
        stages, total = int(draw.integers(1, 9)), int(draw.integers(1, 14))
        forward_s, backward_s = draw.exponential(1.0, stages), draw.exponential(2.0, stages)
        both_s = forward_s + backward_s
        step_s = one_forward_one_backward(forward_s.tolist(), backward_s.tolist(), total) * (1 + 1e-9)
        for turn in range(stages):
            before_s, behind_s = both_s[:turn].sum(), both_s[turn + 1 :].sum()
            assert before_s + total * both_s[turn] <= step_s
            if turn >= stages - total:
                assert before_s + (total - stages + 1 + turn) * both_s[turn] + 2 * behind_s <= step_s


@pytest.mark.parametrize(
    ("limits", "piped"),
    [
        ({"fix": {"zero_stage": 3}}, False),
        ({"fix": {"schedule": "gpipe"}}, False),
        ({"fix": {"recompute": "none"}}, True),
        ({"fix": {"recompute": "full"}}, True),
        ({"fix": {"split": "even"}}, True),
        ({"max": {"recompute_layers": 1}}, True),
    ],
)
def test_pipelines_across_keep_what_is_asked(
    small: Callable[..., Mixed], limits: dict[str, dict[str, object]], piped: bool
) -> None:
    """GPipe and ZeRO-3 don't cross links; what is computed again, and the split, is as asked on every stage."""
    asked = small(link="100 Gb/s, 0.1 ms", batch=16, layers=8, limits=limits)
    short = [round(0.09 * limit) for limit in asked.memory_limits_bytes]
    members, cuts = members_of(asked.jobs, asked.limits, short), []
    for found in configurations(members, asked.islands.links, share=16.0, below_s=np.inf):
        for row in range(len(found)):
            total = -(-16 // int(found.sequences[row]))
            solved = best_chain_cut(found, row, total=total, memory_limits_bytes=short, below_s=1e6, known={})
            cuts += [] if solved.cut is None else [solved.cut]
    assert bool(cuts) == piped
    for cut in cuts:
        again, layers = cut.recomputed, cut.layers
        if "recompute" in asked.limits.fix:
            assert all(again) if asked.limits.fix["recompute"] == "full" else not any(again)
        if "split" in asked.limits.fix:
            assert max(layers) - min(layers) <= 1
        if asked.limits.max:
            assert max(again) <= 1


def test_two_halves_of_one_cluster_are_as_fast_as_the_cost_model_says_of_the_whole(
    small: Callable[..., Mixed],
) -> None:
    asked = small("selene:8+selene:8", link="1600 Gb/s, 5 us", batch=64, layers=8)
    (link,) = asked.islands.links
    members = members_of(asked.jobs, asked.limits, asked.memory_limits_bytes)
    found = configurations(members, [link], share=64.0, below_s=np.inf)[0]
    job = replace(asked.jobs[0], cluster=replace(asked.jobs[0].cluster, devices=16))
    for row in range(0, len(found), 7):
        total = 64 // int(found.sequences[row])
        solved = best_chain_cut(
            found,
            row,
            total=total,
            memory_limits_bytes=asked.memory_limits_bytes,
            below_s=1e6,
            known={},
            even=True,
        )
        assert solved.cut is not None
        stages = sum(layout.pipeline_parallel for layout in solved.cut.layouts)
        alike = {
            (layout.tensor_parallel, layout.sequence_parallel, layout.expert_parallel) for layout in solved.cut.layouts
        }
        if len(alike) == 1 and 8 % stages == 0:
            whole = replace(solved.cut.layouts[0], pipeline_parallel=stages, split=())
            seconds = float(predict_time(job, LayoutTable.of([whole])).step_time_s[0])
            assert solved.cut.step_time_s == pytest.approx(seconds, rel=0.05)


def test_the_faster_island_gets_more_layers_and_more_sequences(small: Callable[..., Mixed]) -> None:
    across = search_mixed(small(link="2000 Gb/s, 1 us", batch=64, layers=16, limits={"fix": {"data_parallel": 1}}))
    for party in across.best.parties:
        if party.cut is not None:
            layers = dict.fromkeys(party.chain, 0)
            for position, count in zip(party.cut.island, party.cut.layers, strict=True):
                layers[party.chain[position]] += count
            assert layers[1] > layers[0]
    apart = search_mixed(small(link="2000 Gb/s, 1 us", batch=64, limits={"fix": {"pipeline_parallel": 1}}))
    shares = {party.chain[0]: party.sequences for party in apart.best.parties}
    assert shares[1] > shares[0]


def test_the_step_does_not_rise_with_a_faster_link(small: Callable[..., Mixed]) -> None:
    steps = [search_mixed(small(link=f"{rate} Gb/s, 0.1 ms", batch=32)).best.step_time_s for rate in (1, 30, 1000)]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > steps[-1]


def test_a_degraded_node_gets_less_to_do(toy_model: Callable[..., ModelEntry]) -> None:
    joined = find_mixed("selene:16+selene:8", ["200 Gb/s, 5 us"]).model_dump(mode="json")
    joined["groups"][0] |= {"nodes": 2, "degrade": [{"node": 1, "compute": 0.5}]}
    entry = MixedClusterEntry.model_validate(joined)
    islands = islands_of(entry)
    assert [(island.nodes, island.cluster.devices) for island in islands.islands] == [((0,), 8), ((1,), 8), ((0,), 8)]
    whole, slow = (islands.islands[number].cluster.device for number in (0, 1))
    assert slow.memory_bandwidth_bytes_per_s == 0.5 * whole.memory_bandwidth_bytes_per_s
    inputs = mixed_inputs(toy_model(layers=4), entry, global_batch=96, limits={"fix": {"pipeline_parallel": 1}}, **JOB)
    found = search_mixed(asked_of(inputs))
    shares = {party.chain[0]: party.sequences for party in found.best.parties}
    assert sum(shares.values()) == 96
    assert shares.get(1, 0) < shares[0]


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 5), (3, 25)])
def test_shapes_are_all_ordered_ways(small: Callable[..., Mixed], count: int, expected: int) -> None:
    """Of n islands, sum over subsets of the partitions into ordered lists: 1, 3, 13 of exactly 1, 2, 3."""
    islands = small("selene:2+dgx-h100:2+selene:2").islands
    chosen = replace(islands, islands=islands.islands[:count])
    shapes = shapes_of(chosen)
    assert len(shapes) == len(set(shapes)) == expected


@pytest.mark.parametrize(
    ("model", "cluster", "link", "batch"),
    [
        ("mixtral-8x7b", "selene:16+dgx-h100:16", "100 Gb/s, 1 ms", 256),
        ("llama-3.1-8b", "selene:8+dgx-h100:8", "400 Gb/s, 0.1 ms", 100),
    ],
)
def test_models_of_the_catalog_are_proved_optimal(model: str, cluster: str, link: str, batch: int) -> None:
    """A mixture whose memory decides, and replicas of few micro-batches."""
    found = search_mixed(asked_of(mixed_inputs(model, cluster, links=[link], global_batch=batch, limits={}, **JOB)))
    assert found.bound_s == pytest.approx(found.best.step_time_s, rel=1e-6)


def test_many_islands_train_replicas_of_their_own(small: Callable[..., Mixed]) -> None:
    islands = small("+".join(["selene:2"] * 6)).islands
    assert len(shapes_of(islands)) == 2**6 - 1
    found = search_mixed(small("+".join(["selene:1", *["dgx-h100:1"] * 5]), batch=36, link="1600 Gb/s, 5 us"))
    assert all(len(chain) == 1 for chain in found.best.shape)
    assert found.bound_s <= found.best.step_time_s


def law(*, each_s: float, sequences: int, tail_s: float | None = None, rest_s: float = np.inf) -> Laws:
    tails = np.zeros((0, 1)) if tail_s is None else np.array([[tail_s]])
    return Laws(
        sequences=np.array([sequences]),
        quantum=np.array([1]),
        fixed_s=np.zeros(1),
        each_s=np.array([each_s]),
        exposed_s=np.zeros(1),
        tails_s=tails,
        share=10.0,
        rest_s=rest_s,
        fastest=10.0,
    )


def test_shares_by_hand() -> None:
    """12 sequences: in 4 s the first has done 4 x 2 of them, in 2 s and 4 s the second 2 and 4."""
    found, bound_s = best_shares(
        [law(each_s=1.0, sequences=2), law(each_s=2.0, sequences=2)],
        batch=12,
        sizes=[np.array([2]), np.array([2])],
    )
    assert found is not None
    assert found.sequences == (8, 4)
    assert found.step_time_s == pytest.approx(4.0)
    assert bound_s == pytest.approx(4.0)


def test_a_smaller_last_micro_batch_by_hand() -> None:
    """7 sequences, 4 of them a micro-batch of 4 s: one and a half of two take 4 s and 2.5 s."""
    found, _ = best_shares([law(each_s=4.0, sequences=4, tail_s=2.5)], batch=6, sizes=[np.array([4])])
    assert found is not None
    assert found.step_time_s == pytest.approx(6.5)


def test_layouts_that_were_not_looked_at_count_in_the_bound() -> None:
    known = law(each_s=1.0, sequences=1, rest_s=8.0)
    _, bound_s = best_shares([known], batch=10, sizes=[np.array([1])])
    assert bound_s == pytest.approx(8.0)


def test_the_widest_tree_by_hand(small: Callable[..., Mixed]) -> None:
    edges = [
        Edge(between=(0, 1), bandwidth_bytes_per_s=1.0, latency_s=0.0),
        Edge(between=(0, 2), bandwidth_bytes_per_s=3.0, latency_s=0.0),
        Edge(between=(1, 2), bandwidth_bytes_per_s=2.0, latency_s=0.0),
    ]
    tree = widest_tree(3, edges)
    assert {edge.between for edge in tree} == {(0, 2), (1, 2)}
    job = small().jobs[0]
    count = exchange_of(job, 3, tree, Across.COPIES).gradients_s * 2.0 / job.stack.reduce_bytes
    shards = exchange_of(job, 3, tree, Across.SHARDS)
    # Each edge parts one party from two: two thirds of the gradients and of the new parameters go over the slower one.
    assert shards.gradients_s == pytest.approx(2 / 3 * count * job.stack.reduce_bytes / 2.0)
    assert shards.parameters_s == pytest.approx(2 / 3 * count * 2 / 2.0)
    assert widest_tree(3, edges[:1]) == ()
