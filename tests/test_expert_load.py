"""How much more the busiest expert rank has to do, against order statistics, and what of a layer that changes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.catalog.lookup import find_model
from meshwright.costmodels.activations import layer_activations
from meshwright.costmodels.expert_load import busiest_rank_load, expected_maximum
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, layer_time
from meshwright.costmodels.layer_work import expert_rows
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.transformer import Experts
from meshwright.planner.accuracy import Case
from meshwright.planner.accuracy.case_model import transformer_of_case
from meshwright.planner.experts import routed_model, routing_of

EXPERTS: dict[str, Any] = {"experts": 64, "top_k": 2, "ffn_hidden": 512}

# Tokens that each of the 60 experts of Qwen1.5-MoE-A2.7B-Chat's first layer got from 2,434 tokens of GSM8K.
QWEN = np.array(
    [
        [113, 161, 174, 212, 145, 119, 203, 181, 218, 161, 158, 162, 118, 150, 139, 171, 162, 110, 163, 167],
        [229, 166, 168, 202, 171, 157, 176, 134, 132, 107, 174, 133, 132, 136, 166, 208, 123, 167, 215, 218],
        [139, 192, 240, 169, 155, 181, 222, 150, 109, 186, 172, 110, 109, 126, 140, 161, 203, 192, 160, 119],
    ]
).ravel()


def mixture(spread: float, *, experts: int = 64) -> Experts:
    return Experts(
        experts=experts,
        top_k=2,
        ffn_hidden=512,
        shared_ffn_hidden=0,
        shared_gate=False,
        router_bias=False,
        gated=True,
        load_spread=spread,
    )


def test_expected_maxima_are_those_of_order_statistics() -> None:
    # Of one: 0. Of two: 1 / sqrt(pi). Of three: 3 / (2 sqrt(pi)). Of four and eight: tables (Harter 1961).
    found = expected_maximum(np.array([[8, 1, 2], [3, 4, 1]]))
    expected = np.array([[1.42360, 0, 1 / np.sqrt(np.pi)], [1.5 / np.sqrt(np.pi), 1.02938, 0]])
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_busiest_rank_by_hand() -> None:
    # 64 experts of a spread of 0.4: 32 on each of two ranks, 0.4 / sqrt(32) x 0.56419 = 0.03989; one on each of 64,
    # 0.4 x 2.34373 = 0.93749; all on one rank, nothing.
    found = busiest_rank_load(mixture(0.4), np.array([2, 64, 1]))
    assert found == pytest.approx([1.03989, 1.93749, 1.0], abs=1e-5)


def test_no_rank_gets_more_than_everything() -> None:
    # Two experts of a spread of 10 on two ranks: 1 + 0.56419 x 10 would be six times the even share of two.
    assert busiest_rank_load(mixture(10.0, experts=2), np.array([1, 2])) == pytest.approx([1.0, 2.0])


def test_even_routing_loads_every_rank_alike() -> None:
    assert busiest_rank_load(mixture(0.0), np.array([1, 8, 64])) == pytest.approx([1, 1, 1], abs=0)


@given(spread=st.floats(0, 10), more=st.floats(0, 1), ranks=st.integers(0, 5))
def test_load_grows_with_ranks_and_with_spread(spread: float, more: float, ranks: int) -> None:
    two = np.array([2**ranks, 2 ** (ranks + 1)])
    few, many = busiest_rank_load(mixture(spread), two)
    assert 1 <= few <= many <= two[1]
    assert np.all(busiest_rank_load(mixture(min(spread + more, 10)), two) >= [few, many])


@pytest.mark.parametrize("ranks", [2, 4, 6, 12, 20])
def test_measured_loads_dealt_at_random_do_what_the_law_says(ranks: int) -> None:
    loads = QWEN / QWEN.mean()
    random = np.random.default_rng(7)
    busiest = [random.permutation(loads).reshape(ranks, -1).mean(axis=1).max() for _ in range(2000)]
    law = busiest_rank_load(mixture(float(loads.std(ddof=1)), experts=60), np.array([ranks]))
    assert law - 1 == pytest.approx(np.mean(busiest) - 1, rel=0.05)


def test_products_messages_and_activations_of_experts_follow_the_busiest_rank(round_job: Callable[..., Job]) -> None:
    even, uneven = (round_job(model={"experts": EXPERTS | {"load_spread": spread}}) for spread in (0.0, 0.4))
    layouts = LayoutTable.of([Layout(data_parallel=4, expert_parallel=4), Layout(data_parallel=4)])
    # 1,000 tokens to two experts each; 16 experts a rank: 1 + 1.02938 x 0.4 / 4 = 1.102938.
    layer = uneven.model.layer_kinds[0]
    assert isinstance(layer.mlp, Experts)
    assert expert_rows(uneven, layer.mlp, layouts) == pytest.approx([2205.875, 2000.0])
    before, after = (layer_time(job, job.model.layer_kinds[0], layouts).forward for job in (even, uneven))
    for cause in (Cause.MATMUL, Cause.ELEMENTWISE, Cause.EXPERT):
        assert after[cause][0] > before[cause][0]
        assert after[cause][1] == before[cause][1]
    assert np.all(after[Cause.ATTENTION] == before[Cause.ATTENTION])
    kept = [layer_activations(job, job.model.layer_kinds[0], layouts).kept for job in (even, uneven)]
    # Of a pair: input, gate-less width before and behind the activation, 2 bytes each.
    assert kept[1] - kept[0] == pytest.approx([205.875 * 2 * (1024 + 2 * 512), 0.0], abs=1.0)


def test_cases_may_tell_the_spread_of_loads(case_document: Callable[..., dict[str, Any]]) -> None:
    moe = {"experts": 8, "top_k": 2, "expert_ffn_hidden": 512, "load_spread": 0.3}
    case = Case.model_validate(case_document(model={"moe": moe}))
    layer = transformer_of_case(case.model)[0].layers[0]
    assert isinstance(layer.mlp, Experts)
    assert layer.mlp == replace(mixture(0.3, experts=8), gated=False)
    with pytest.raises(ValueError, match="leave one of the two out"):
        Case.model_validate(case_document(model={"moe": moe | {"capacity_factor": 1.0}}))


def test_placed_loads_stand_in_for_the_spread() -> None:
    placed = replace(mixture(0.5), placed_loads=((1, 1.0), (4, 1.25), (2, 1.1), (64, 3.0)))
    assert busiest_rank_load(placed, np.array([1, 2, 4, 8, 64])).tolist() == [1.0, 1.1, 1.25, 3.0, 3.0]


def test_a_routed_model_is_as_loaded_as_its_placement() -> None:
    entry = find_model("mixtral-8x7b")
    routing = routing_of(np.tile([4.0, 3.0, 3.0, 2.0, 2.0, 2.0, 1.0, 1.0], (32, 1)))
    loads = {load.expert_parallel: load.load for load in routed_model(entry, routing).experts.placed_loads}
    # 18 in all: 9 on each of two, 5 and 4 on the busiest of four, where 4.5 is the mean, 4 of the mean of 2.25 on one.
    assert loads == pytest.approx({1: 1.0, 2: 1.0, 4: 5 / 4.5, 8: 4 / 2.25})
    assert "placed_loads" not in entry.experts.model_dump()
