"""Names as people type them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import entry_names
from meshwright.catalog.names import canonical_name, is_slip_of, match_name

KNOWN = ("dgx-h100", "cloud-h100", "gb200-nvl72", "llama-3.1-70b")


@pytest.mark.parametrize("typed", ["DGX_H100", "dgxh100", "dgx-h100", "Dgx H100", "d.g.x-h100"])
def test_case_and_punctuation_do_not_matter(typed: str) -> None:
    assert match_name(typed, KNOWN, kind="cluster") == "dgx-h100"


def test_a_misspelt_name_gets_the_nearest_ones() -> None:
    with pytest.raises(InputError) as caught:
        match_name("dgx-h10", KNOWN, kind="cluster")
    assert caught.value.message == "no cluster is called 'dgx-h10'"
    assert caught.value.hint.startswith("did you mean dgx-h100")
    assert caught.value.exit_code == 2


def test_a_name_like_no_other_gets_the_whole_list() -> None:
    with pytest.raises(InputError) as caught:
        match_name("zzz", KNOWN, kind="cluster")
    assert caught.value.hint == "known: cloud-h100, dgx-h100, gb200-nvl72, llama-3.1-70b"


@pytest.mark.parametrize("typed", ["", "---", "x" * 1_000_000])
def test_a_name_that_is_none_is_one_short_error(typed: str) -> None:
    with pytest.raises(InputError) as caught:
        match_name(typed, KNOWN, kind="model")
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("kind", ["devices", "clusters", "models", "stacks"])
def test_no_two_catalog_names_are_spelt_alike(kind: str) -> None:
    names = entry_names(kind)
    assert len({canonical_name(name) for name in names}) == len(names)


@given(st.text(max_size=40))
def test_a_spelling_stays_itself_when_made_canonical_again(name: str) -> None:
    assert canonical_name(canonical_name(name)) == canonical_name(name)


@pytest.mark.parametrize("typed", ["tensor_paralel", "tensor_paralllel", "tenosr_parallel", "Tensor-Parallel"])
def test_a_slip_is_a_letter_too_many_too_few_or_two_that_changed_places(typed: str) -> None:
    assert is_slip_of(typed, "tensor_parallel")


@pytest.mark.parametrize("other", ["sensor_parallel", "tensor_parallel_2d", "parallel", "nesort_parallel"])
def test_another_letter_makes_another_name(other: str) -> None:
    assert not is_slip_of(other, "tensor_parallel")
