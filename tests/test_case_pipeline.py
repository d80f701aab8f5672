"""The pipeline of a case: schedules, chunks and splits as sources say them."""

from collections.abc import Callable
from typing import Any

import pytest

from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import stack_named
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.planner.accuracy.case import Case
from meshwright.planner.accuracy.case_cluster import machine_named
from meshwright.planner.accuracy.case_layout import layouts_of_case
from meshwright.planner.accuracy.case_pipeline import with_full_streams
from meshwright.planner.accuracy.estimate import estimate, job_of_case
from meshwright.planner.layout.rules import PIPELINE_RULES

MakeCase = Callable[..., Case]


@pytest.fixture
def make_case(case_document: Callable[..., dict[str, Any]]) -> MakeCase:
    return lambda **changes: Case.model_validate(case_document(**changes))


def layout_of(case: Case) -> Layout:
    candidates, _ = layouts_of_case(case)
    return candidates[0]


def pipeline(stages: int, **layout: object) -> dict[str, Any]:
    """Give the changes that make a case of so many stages, of 16 devices."""
    return {"layout": {"pipeline_parallel": stages, "data_parallel": 8 // stages} | layout}


@pytest.mark.parametrize(
    ("stages", "virtual", "said", "split"),
    [
        (4, 1, "1,2,2,3", (1, 2, 2, 3)),
        (2, 1, "3,5", (3, 5)),
        (2, 2, "1,3,3,1", (1, 3, 3, 1)),
        (2, 2, "2,6", (1, 3, 1, 3)),
        (4, 1, "1,3", (1, 2, 2, 3)),
        (8, 1, "2,0", (2, 1, 1, 1, 1, 1, 1, 0)),
        (1, 1, "8", ()),
    ],
)
def test_splits_are_of_chunks_of_stages_or_of_the_ends(
    make_case: MakeCase, stages: int, virtual: int, said: str, split: tuple[int, ...]
) -> None:
    case = make_case(**pipeline(stages, virtual_pipeline=virtual, first_last_pp_layers=said))
    assert layout_of(case).split == split


@pytest.mark.parametrize(
    ("stages", "virtual", "said", "words"),
    [
        (4, 1, "1,2,2,2", "chunks of 1, 2, 2, 2 layers aren't 8 layers in 4 chunks"),
        (4, 1, "1,2,5", "1,2,5 layers are not those of 4 stages of 1 chunks"),
        (4, 1, "4,4", "4,4 layers are not those of 4 stages"),
        (2, 2, "3,5", "3,5 layers are not those of 2 stages of 2 chunks"),
    ],
)
def test_splits_of_other_layers_are_told(make_case: MakeCase, stages: int, virtual: int, said: str, words: str) -> None:
    case = make_case(**pipeline(stages, virtual_pipeline=virtual, first_last_pp_layers=said))
    with pytest.raises(InputError, match=words) as raised:
        layouts_of_case(case)
    assert raised.value.path == "layout.first_last_pp_layers"


def test_a_larger_stage_takes_longer(make_case: MakeCase) -> None:
    even, uneven = (
        estimate([make_case(**pipeline(2, **split))])[0].predicted for split in ({}, {"first_last_pp_layers": "3,5"})
    )
    assert even is not None
    assert uneven is not None
    assert 1.05 * even.breakdown["matmul"] < uneven.breakdown["matmul"] <= 1.25 * even.breakdown["matmul"] * (1 + 1e-9)


@pytest.mark.parametrize(
    ("said", "schedule", "chunks"),
    [
        ({"schedule": "zbv"}, Schedule.ZERO_BUBBLE_V, 2),
        ({"schedule": "ZBVZeroBubble", "virtual_pipeline": 2}, Schedule.ZERO_BUBBLE_V, 2),
        ({"schedule": "V-Half"}, Schedule.V_HALF, 2),
        ({"schedule": "v-min", "virtual_pipeline": 2}, Schedule.V_MIN, 2),
        ({"schedule": "DualPipeV"}, Schedule.DUAL_PIPE_V, 2),
        ({"schedule": "DualPipe"}, Schedule.DUAL_PIPE, 1),
        ({"schedule": "ZB-H2"}, Schedule.ZERO_BUBBLE_2P, 1),
        ({"schedule": "AFAB"}, Schedule.GPIPE, 1),
        ({"schedule": "1f1b", "virtual_pipeline": 2}, Schedule.INTERLEAVED, 2),
        ({"schedule": "interleaved"}, Schedule.ONE_F_ONE_B, 1),
        ({}, Schedule.ONE_F_ONE_B, 1),
    ],
)
def test_schedules_have_their_chunks(
    make_case: MakeCase, said: dict[str, Any], schedule: Schedule, chunks: int
) -> None:
    layout = layout_of(make_case(**pipeline(2, **said)))
    assert (layout.schedule, layout.virtual_pipeline) == (schedule, chunks)


def test_an_unsaid_fold_is_an_assumption(make_case: MakeCase) -> None:
    for said, told in (({}, True), ({"virtual_pipeline": 2}, False)):
        _, assumptions = layouts_of_case(make_case(**pipeline(2, schedule="v-half", **said)))
        assert ("v-half is taken to have two chunks a stage" in assumptions) == told


@pytest.mark.parametrize(
    ("said", "path", "words"),
    [
        ({"schedule": "v-half", "virtual_pipeline": 4}, "layout.schedule", "v-half needs two chunks a stage, not 4"),
        ({"schedule": "dualpipe", "virtual_pipeline": 2}, "layout.schedule", "an even number of stages of one chunk"),
        ({"virtual_pipeline": 6}, "layout.virtual_pipeline", "8 layers can't be cut into 12 chunks"),
    ],
)
def test_what_a_schedule_cannot_place_is_told(make_case: MakeCase, said: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        layouts_of_case(make_case(**pipeline(2, **said)))
    assert raised.value.path == path


@pytest.mark.parametrize(
    ("stages", "schedule", "micro_batches", "full"),
    [
        *((4, "dualpipe", count, full) for count, full in ((1, False), (7, False), (8, True), (9, False), (10, True))),
        *((4, "dualpipev", count, full) for count, full in ((1, False), (7, False), (8, True), (9, True))),
        (4, "1f1b", 1, True),
        (4, "zb-h1", 1, True),
    ],
)
def test_two_streams_need_the_micro_batches_that_plans_have(
    make_case: MakeCase, stages: int, schedule: str, micro_batches: int, full: bool
) -> None:
    batch = {"global_batch": 2 * micro_batches, "micro_batch": 1}
    (found,) = estimate([make_case(**pipeline(stages, schedule=schedule), batch=batch)])
    assert (found.predicted is not None) == full, found.error
    if full:
        return
    told = "1 micro-batch" if micro_batches == 1 else f"{micro_batches} micro-batches"
    assert isinstance(found.failure, InputError)
    assert found.failure.path == "layout.schedule"
    reason = next(rule.reason for rule in PIPELINE_RULES if rule.reason.startswith("DualPipe needs two"))
    assert f"{reason}; a replica has {told} for {stages} stages" in found.failure.message
    assert "batch.micro_batch" in found.failure.hint


def test_micro_batches_that_are_left_open_are_those_that_fill_both_streams(make_case: MakeCase) -> None:
    """Of a replica's 16 sequences micro-batches of 1 and 2 leave 4 stages the 8 that they need, and 4 wouldn't."""
    case = make_case(**pipeline(4, schedule="dualpipe"), batch={"global_batch": 32, "micro_batch": None})
    job, _ = job_of_case(case, machine_named(case.cluster.device), [stack_named("megatron-core")])
    candidates, _ = layouts_of_case(case)
    assert {layout.micro_batch for layout in candidates} == {1, 2, 4, 8, 16}
    assert set(with_full_streams(LayoutTable.of(candidates), job).micro_batch) == {1, 2}


def test_a_case_may_share_its_vocabulary(make_case: MakeCase) -> None:
    assert layout_of(make_case(**pipeline(2, vocabulary_parallel="True"))).vocabulary_parallel
    assert not layout_of(make_case(**pipeline(2))).vocabulary_parallel


def test_the_fork_that_has_zero_bubbles_does_not_wait_at_the_end_of_a_step(make_case: MakeCase) -> None:
    fork, other = (
        estimate([make_case(framework=name, **pipeline(4, schedule="zb-2p"))])[0].predicted
        for name in ("Megatron-LM fork", "Megatron-LM")
    )
    assert fork is not None
    assert other is not None
    assert fork.breakdown["bubble"] < other.breakdown["bubble"]
    assert fork.breakdown["matmul"] == other.breakdown["matmul"]
