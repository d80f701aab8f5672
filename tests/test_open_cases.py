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


@pytest.mark.parametrize("no", [False, "False", "no", "Off", "None", "disabled"])
@pytest.mark.parametrize(
    "name",
    ["flash_attention", "deterministic", "no_accumulation_fusion", "fp8_params", "cross_entropy_fusion", "compile"],
)
def test_a_no_in_any_words_is_a_no(make_case: MakeCase, name: str, no: bool | str) -> None:
    written = Case.model_validate(make_case(layout={name: no}).model_dump())
    assert getattr(written.layout, name) is False


def test_a_loss_that_is_not_fused_is_not(make_case: MakeCase) -> None:
    fused, plain, default = (
        only(make_case(framework="Megatron-Core", layout={"cross_entropy_fusion": setting})).predicted
        for setting in (True, False, None)
    )
    assert fused is not None
    assert plain is not None
    assert default is not None
    assert fused.step_time_s == default.step_time_s < plain.step_time_s


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ({"optimizer": "adafactor"}, "the optimizer 'adafactor' is counted as Adam"),
        ({"optimizer": "AdamW (fused)"}, ""),
        ({"recompute": "full", "recompute_detail": "8 of 32 layers"}, "is taken to be of all layers"),
        ({"recompute": "full", "recompute_detail": "full (method uniform, num-layers 1)"}, ""),
    ],
)
def test_what_is_read_as_something_else_is_told(make_case: MakeCase, layout: dict[str, Any], told: str) -> None:
    found = only(make_case(layout=layout)).predicted
    assert found is not None
    of_it = [text for text in found.assumptions if "Adam" in text or "all layers" in text]
    assert (told in " ".join(of_it)) if told else not of_it


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
    # Of eight layers: each attends to all, every other to 128 tokens only, or each to 128.
    texts = ("Full", "alternating full / sliding window 128", "sliding window 128")
    full, alternating, narrow = (only(make_case(model={"attention": text})).predicted for text in texts)
    assert full is not None
    assert alternating is not None
    assert narrow is not None
    saved, all_saved = (full.step_time_s - found.step_time_s for found in (alternating, narrow))
    assert saved > 0
    assert all_saved == pytest.approx(2 * saved, rel=0.05)


def test_chunks_are_read(make_case: MakeCase) -> None:
    full, chunked, windowed = (
        only(make_case(model={"attention": text})).predicted for text in ("full", "chunked 128", "sliding window 128")
    )
    assert full is not None
    assert chunked is not None
    assert windowed is not None
    assert chunked.step_time_s < windowed.step_time_s < full.step_time_s


def test_groups_alone_are_all_of_them(make_case: MakeCase) -> None:
    grouped, limited, plain = (
        only(make_case(model={"moe": MIXTURE | groups}, layout={"expert_parallel": 4})).predicted
        for groups in ({"n_group": 4}, {"n_group": 4, "topk_group": 1}, {})
    )
    assert grouped is not None
    assert limited is not None
    assert plain is not None
    assert limited.step_time_s <= grouped.step_time_s == plain.step_time_s
