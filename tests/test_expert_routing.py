"""Instances of a tier that a token enters, by hand, by enumeration of all choices, and where routers really choose."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.costmodels.expert_routing import others_entered
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, layer_time
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.transformer import Experts, Layer


def mixture(experts: int, top_k: int, *, groups: int = 1, drawn: int = 1, consecutive: bool = False) -> Experts:
    return Experts(
        experts=experts,
        top_k=top_k,
        ffn_hidden=512,
        shared_ffn_hidden=0,
        shared_gate=False,
        router_bias=False,
        gated=True,
        groups=groups,
        groups_per_token=drawn,
        consecutive=consecutive,
    )


def entered(experts: Experts, instances: float) -> float:
    return float(others_entered(experts, np.array([instances - 1.0]))[0])


def test_a_token_of_deepseek_v3_enters_fewer_nodes() -> None:
    anywhere, grouped = mixture(256, 8), mixture(256, 8, groups=8, drawn=4)
    assert entered(anywhere, 8) == pytest.approx(7 * (1 - (7 / 8) ** 8))
    # A group a node: it is one of the four in half of all cases, and then missed by 8 experts of four nodes.
    assert entered(grouped, 8) == pytest.approx(7 * 0.5 * (1 - (3 / 4) ** 8))
    # Two groups a node: of the 70 fours of groups 15 have neither, 40 one and 15 both.
    missed = (15 + 40 * (3 / 4) ** 8 + 15 * (1 / 2) ** 8) / 70
    assert entered(grouped, 4) == pytest.approx(3 * (1 - missed))
    # Two nodes a group: each has an eighth of the experts that four groups hold.
    assert entered(grouped, 16) == pytest.approx(15 * 0.5 * (1 - (7 / 8) ** 8))
    assert entered(grouped, 1) == 0


def test_numbers_of_instances_keep_their_places() -> None:
    grouped = mixture(256, 8, groups=8, drawn=4)
    several = others_entered(grouped, np.array([[7.0, 3.0], [0.0, 7.0]]))
    expected = [[entered(grouped, 8), entered(grouped, 4)], [0.0, entered(grouped, 8)]]
    assert several == pytest.approx(np.array(expected))


def of_all_choices(experts: Experts, instances: int) -> float:
    """Go through every draw of groups, and every choice of experts from them, one after the other."""
    size = experts.experts // experts.groups
    counts = []
    for drawn in combinations(range(experts.groups), experts.groups_per_token):
        held = [group * size + expert for group in drawn for expert in range(size)]
        for chosen in product(held, repeat=experts.top_k):
            counts.append(len({expert * instances // experts.experts for expert in chosen}))
    return float(np.mean(counts)) * (instances - 1) / instances


@pytest.mark.parametrize(
    ("experts", "instances"),
    [
        (mixture(12, 3, groups=6, drawn=2), 2),  # three groups an instance
        (mixture(12, 3, groups=6, drawn=2), 4),  # one and a half
        (mixture(12, 3, groups=6, drawn=2), 6),
        (mixture(12, 3, groups=3, drawn=2), 6),  # two instances a group
        (mixture(12, 3, groups=3, drawn=2), 12),
        (mixture(12, 3, groups=3, drawn=2), 2),
        (mixture(8, 4, groups=4, drawn=2), 2),
        (mixture(8, 3, groups=4, drawn=1), 8),
        (mixture(8, 1, groups=4, drawn=3), 4),
        (mixture(12, 3), 4),
        (mixture(12, 3, groups=4, drawn=4), 6),
    ],
)
def test_entered_is_what_all_choices_give(experts: Experts, instances: int) -> None:
    assert entered(experts, instances) == pytest.approx(of_all_choices(experts, instances))


def test_a_router_that_takes_each_expert_once_enters_hardly_more() -> None:
    random = np.random.default_rng(0)
    counts = []
    for _ in range(4_000):
        drawn = random.choice(8, size=4, replace=False)
        held = (drawn[:, np.newaxis] * 32 + np.arange(32)).ravel()
        counts.append(len({int(expert) // 32 for expert in random.choice(held, size=8, replace=False)}))
    assert entered(mixture(256, 8, groups=8, drawn=4), 8) == pytest.approx(np.mean(counts) * 7 / 8, rel=0.03)


@given(
    st.integers(1, 6), st.integers(1, 8), st.integers(1, 8), st.integers(1, 8), st.sampled_from([1, 2, 3, 4, 6, 12, 64])
)
def test_groups_never_send_a_token_farther(size: int, groups: int, drawn: int, top_k: int, instances: int) -> None:
    drawn = min(drawn, groups)
    grouped = mixture(size * groups, min(top_k, size * drawn), groups=groups, drawn=drawn)
    anywhere = replace(grouped, groups=1, groups_per_token=1)
    assert 0 <= entered(grouped, instances) <= entered(anywhere, instances) + 1e-9
    once = replace(grouped, top_k=1)
    assert entered(once, instances) == pytest.approx((instances - 1) / instances)


@pytest.mark.parametrize(
    ("experts", "top_k", "ranks"),
    [(256, 8, 8), (256, 8, 64), (384, 8, 32), (128, 6, 8), (128, 4, 64), (12, 5, 3), (12, 9, 3), (8, 8, 4), (9, 2, 3)],
)
def test_runs_enter_what_counting_them_gives(experts: int, top_k: int, ranks: int) -> None:
    each = experts // ranks
    runs = [{(start + number) % experts // each for number in range(top_k)} for start in range(0, experts**2, top_k)]
    counted = float(np.mean([len(run) for run in runs[:experts]]))
    found = entered(mixture(experts, top_k, consecutive=True), ranks)
    assert found == pytest.approx(counted * (ranks - 1) / ranks)


def test_a_layer_s_dispatch_follows_its_routing(round_job: Callable[..., Job]) -> None:
    # 8 expert ranks on 2 nodes of 4: of 2 x 1000 pairs of 2 h bytes some leave the node, at 5 GB/s, there and back; the
    # own eighth is copied inside; trees of 2 x 1 us and 10 us.
    def seconds(*, deduplicated: bool = True, consecutive: bool = False, **groups: int) -> float:
        experts = {"experts": 8, "top_k": 2, "ffn_hidden": 512, **groups}
        job = round_job(model={"experts": experts}, stack={"deduplicated_dispatch": deduplicated})
        layer: Layer = job.model.layers[0]
        assert isinstance(layer.mlp, Experts)
        layer = replace(layer, mlp=replace(layer.mlp, consecutive=consecutive))
        table = LayoutTable.of([Layout(data_parallel=8, expert_parallel=8)])
        return float(layer_time(job, layer, table).forward[Cause.EXPERT][0])

    def expected(share: float, hidden: int) -> float:
        pairs_bytes = 2 * 1000 * 2 * hidden
        return 2 * (share * pairs_bytes / 5e9 + 0.4 / 8 * pairs_bytes / 50e9 + 12e-6)

    hidden = round_job(model={"experts": {"experts": 8, "top_k": 2, "ffn_hidden": 512}}).model.hidden
    assert seconds() == pytest.approx(expected(3 / 8, hidden))
    # Either node's group, with both experts: it is the other one in half of all cases.
    assert seconds(groups=2) == pytest.approx(expected(1 / 4, hidden))
    assert seconds(consecutive=True) == pytest.approx(expected(1 / 4, hidden))
    # Sent once for each expert, it is all the same where they are.
    for routed in ({}, {"groups": 2}, {"consecutive": True}):
        assert seconds(deduplicated=False, **routed) == pytest.approx(expected(1 / 2, hidden))
