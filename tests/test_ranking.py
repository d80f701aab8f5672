"""Whether layouts of one job are put in the right order: by hand, and as laws."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.planner.accuracy import Estimate, accuracy
from meshwright.planner.accuracy.ranking import Ranking

MakeEstimate = Callable[..., Estimate]
Times = list[tuple[float, float]]


def rankings(make_estimate: MakeEstimate, times: Times, micro_batches: list[int] | None = None) -> tuple[Ranking, ...]:
    """Rank layouts of one job by their measured and predicted times; equal micro-batches are repeats."""
    chosen = micro_batches or list(range(1, len(times) + 1))
    estimates = [
        make_estimate({"step_time_s": measured}, step_time_s=predicted, id=f"case {index}", batch={"micro_batch": size})
        for index, ((measured, predicted), size) in enumerate(zip(times, chosen, strict=True))
    ]
    return accuracy(estimates).rankings


def test_a_group_by_hand(make_estimate: MakeEstimate) -> None:
    (ranking,) = rankings(make_estimate, [(1.00, 1.2), (1.01, 1.3), (1.10, 1.1), (1.50, 1.4)])
    (group,) = ranking.groups
    assert (group.picked.name, group.best.name) == ("case 2", "case 0")
    assert group.over_best == pytest.approx(1.1)
    # Of six pairs 0-1 is too near; 0-2 and 1-2 are wrong; 0-3, 1-3 and 2-3 are right.
    assert (group.pairs, group.ordered) == (5, 3)
    assert (ranking.mean_over_best, ranking.worst_over_best) == (group.over_best, group.over_best)


def test_repeats_are_one_layout_of_their_median(make_estimate: MakeEstimate) -> None:
    times = [(1.0, 2.0), (1.3, 2.0), (1.2, 2.0), (1.1, 1.9)]
    (ranking,) = rankings(make_estimate, times, [1, 1, 1, 2])
    (group,) = ranking.groups
    assert [len(candidate.repeats) for candidate in group.candidates] == [3, 1]
    assert group.candidates[0].measured_s == 1.2
    assert (group.pairs, group.ordered, group.over_best) == (1, 1, 1.0)


def test_repeats_alone_are_no_group(make_estimate: MakeEstimate) -> None:
    assert rankings(make_estimate, [(1.0, 2.0), (1.3, 2.0)], [1, 1]) == ()


def test_a_tie_is_neither_luck_nor_order(make_estimate: MakeEstimate) -> None:
    (ranking,) = rankings(make_estimate, [(1.0, 2.0), (1.3, 2.0)])
    (group,) = ranking.groups
    assert group.over_best == pytest.approx(1.3)
    assert (group.pairs, group.ordered) == (1, 0)


@pytest.mark.parametrize(
    "other",
    [
        {"file": "b.yaml"},
        {"precision": "fp16"},
        {"framework": "FSDP"},
        {"model": {"hidden": 2048}},
        {"model": {"sequence_length": 2048}},
        {"cluster": {"devices": 32}},
        {"batch": {"global_batch": 128, "micro_batch": 1}},
    ],
)
def test_what_makes_another_job(make_estimate: MakeEstimate, other: dict[str, object]) -> None:
    estimates = [make_estimate({"step_time_s": 1.0}, batch={"micro_batch": 2})]
    assert accuracy([*estimates, make_estimate({"step_time_s": 2.0}, **other)]).rankings == ()


@pytest.mark.parametrize(
    "other",
    [
        {"layout": {"pipeline_parallel": 4, "data_parallel": 2}},
        {"layout": {"flash_attention": True}},
        {"model": {"name": "GPT 1B", "parameters_billion": 1.0}, "batch": {"micro_batch": 1}},
        {"trust": "low", "batch": {"micro_batch": 1}},
    ],
)
def test_what_makes_another_layout_of_the_job(make_estimate: MakeEstimate, other: dict[str, object]) -> None:
    result = accuracy([make_estimate({"step_time_s": 1.0}), make_estimate({"step_time_s": 2.0}, **other)])
    assert [ranking.pairs for ranking in result.rankings] == [1]


def test_memory_has_no_ranking(make_estimate: MakeEstimate) -> None:
    measured = {"peak_memory_bytes": 2**33, "peak_memory_kind": "allocated"}
    result = accuracy([make_estimate(measured), make_estimate(measured, batch={"micro_batch": 1})])
    assert result.rankings == ()


TIMES = st.lists(st.floats(0.1, 100), min_size=2, max_size=8)


@given(measured=TIMES, scale=st.floats(0.1, 10))
def test_one_factor_changes_no_ranking(make_estimate: MakeEstimate, measured: list[float], scale: float) -> None:
    (ranking,) = rankings(make_estimate, [(time, time * scale) for time in measured])
    assert ranking.ordered == ranking.pairs <= len(measured) * (len(measured) - 1) // 2
    assert ranking.worst_over_best == 1


@given(measured=TIMES)
def test_what_is_upside_down_ranks_wrong(make_estimate: MakeEstimate, measured: list[float]) -> None:
    (ranking,) = rankings(make_estimate, [(time, 1 / time) for time in measured])
    assert ranking.ordered == 0
    assert ranking.worst_over_best == pytest.approx(max(measured) / min(measured))


@given(times=st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)), min_size=2, max_size=8))
def test_laws(make_estimate: MakeEstimate, times: Times) -> None:
    (ranking,) = rankings(make_estimate, times)
    (group,) = ranking.groups
    assert 0 <= group.ordered <= group.pairs
    assert 1 <= group.over_best <= max(measured for measured, _ in times) / min(measured for measured, _ in times)
    assert group.picked.predicted_s == min(predicted for _, predicted in times)
