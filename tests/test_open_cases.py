"""Cases that say more than is known here: of switches it is told, models aren't guessed at."""

from collections.abc import Callable
from typing import Any

import pytest

from meshwright.planner.accuracy import Case, Estimate, estimate

MIXTURE = {"experts": 8, "top_k": 2, "expert_ffn_hidden": 512}
MakeCase = Callable[..., Case]


@pytest.fixture
def make_case(case_document: Callable[..., dict[str, Any]]) -> MakeCase:
    return lambda **changes: Case.model_validate(case_document(**changes))


def only(case: Case) -> Estimate:
    (found,) = estimate([case])
    return found


def test_a_switch_that_nothing_knows_is_told_and_changes_nothing(make_case: MakeCase) -> None:
    plain, switched = (only(make_case(layout=layout)).predicted for layout in ({}, {"ep_comm_overlap": {"a": [1]}}))
    assert plain is not None
    assert switched is not None
    assert (switched.step_time_s, switched.peak_memory_bytes) == (plain.step_time_s, plain.peak_memory_bytes)
    told = set(switched.assumptions) - set(plain.assumptions)
    assert told == {"layout.ep_comm_overlap isn't a known switch: it changes nothing"}


@pytest.mark.parametrize(
    ("overlap", "hides", "told"),
    [
        ("none (all off)", False, False),
        (False, False, False),
        ("gradients, in 40 MiB", True, True),
        (True, True, True),
        ("nonesuch", True, True),
    ],
)
def test_what_overlaps_is_read_where_it_is_none(
    make_case: MakeCase, *, overlap: str | bool, hides: bool, told: bool
) -> None:
    default, given = (
        only(make_case(framework="Megatron-Core", layout=more)).predicted for more in ({}, {"overlap": overlap})
    )
    assert default is not None
    assert given is not None
    assert (given.step_time_s == default.step_time_s) is hides
    assert given.step_time_s >= default.step_time_s
    assert any(text.startswith("layout.overlap") for text in given.assumptions) is told


def test_a_switch_may_name_what_does_it(make_case: MakeCase) -> None:
    on, off, named, none = (
        only(make_case(layout={"flash_attention": setting})).predicted for setting in (True, False, "v3", "none")
    )
    assert on is not None
    assert off is not None
    assert named is not None
    assert none is not None
    assert named.step_time_s == on.step_time_s < off.step_time_s == none.step_time_s
    assert set(named.assumptions) - set(on.assumptions) == {"layout.flash_attention 'v3' is taken for on"}
    assert none.assumptions == off.assumptions


@pytest.mark.parametrize(
    ("formats", "like", "told"),
    [("bf16", "fp16/bf16", False), ("fp32/bf16", None, True), ("by bucket", None, True)],
)
def test_gradients_are_added_up_in_formats_that_are_known(
    make_case: MakeCase, formats: str, like: str | None, *, told: bool
) -> None:
    given, other = (
        only(make_case(framework="Megatron-Core", layout={"grad_accumulation": each})).predicted
        for each in (formats, like)
    )
    assert given is not None
    assert other is not None
    assert given.peak_memory_bytes == other.peak_memory_bytes
    assert any("layout.grad_accumulation" in text for text in given.assumptions) is told


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ({"state_space_layers": 4}, "model.state_space_layers"),
        ({"moe": MIXTURE | {"null_experts": 2}}, "model.moe.null_experts"),
        ({"attention": "sparse, of 2,048 tokens"}, "model.attention"),
        ({"attention": "sliding window 0"}, "model.attention"),
    ],
)
def test_a_model_that_says_what_nothing_knows_is_not_predicted(
    make_case: MakeCase, model: dict[str, Any], path: str
) -> None:
    found = only(make_case(model=model))
    assert found.predicted is None
    assert found.failure is not None
    assert found.failure.path == path
    assert "isn't modelled" in (found.error or "")


def test_windows_are_read(make_case: MakeCase) -> None:
    # Of eight layers at 2,048 tokens: each attends to all, every other to 128 only, or each to 128.
    texts = ("full", "alternating full / sliding window 128", "sliding window 128")
    full, alternating, narrow = (only(make_case(model={"attention": text})).predicted for text in texts)
    assert full is not None
    assert alternating is not None
    assert narrow is not None
    saved, all_saved = (full.step_time_s - found.step_time_s for found in (alternating, narrow))
    assert saved > 0
    assert all_saved == pytest.approx(2 * saved, rel=0.05)
