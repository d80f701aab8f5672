"""What a case says of its experts, and leaves open: how many ranks they are on."""

from collections.abc import Callable
from typing import Any

import pytest

from meshwright.costmodels.transformer import Experts
from meshwright.planner.accuracy.case import Case
from meshwright.planner.accuracy.case_layout import layouts_of_case
from meshwright.planner.accuracy.case_model import transformer_of_case

MIXTURE = {"experts": 8, "top_k": 2, "expert_ffn_hidden": 512}
# A stage of 8 devices, without tensor parallelism.
REPLICAS = {"tensor_parallel": 1, "data_parallel": 8}


@pytest.fixture
def make_case(case_document: Callable[..., dict[str, Any]]) -> Callable[..., Case]:
    return lambda **changes: Case.model_validate(case_document(**changes))


def degree(case: Case) -> tuple[int, str]:
    layouts, assumptions = layouts_of_case(case)
    return layouts[0].expert_parallel, " ".join(assumptions)


@pytest.mark.parametrize("named", ["DeepEP", "TE + DeepEP + FlexAttn", "hybridep", "flex (hybrid-ep)"])
@pytest.mark.parametrize("where", ["kernel", "dispatcher", "of the experts"])
def test_a_dispatcher_between_expert_ranks_needs_some(make_case: Callable[..., Case], named: str, where: str) -> None:
    layout, moe = ({}, {"dispatcher": named}) if where == "of the experts" else ({where: named}, {})
    case = make_case(model={"moe": MIXTURE | moe}, layout=REPLICAS | layout)
    expert_parallel, assumptions = degree(case)
    assert expert_parallel == 8
    assert "expert parallelism is taken to be 8, the most that divides the experts and the devices" in assumptions


def test_it_is_the_widest_that_divides_experts_and_a_stage_s_devices(make_case: Callable[..., Case]) -> None:
    def found(experts: int, **layout: object) -> int:
        moe = MIXTURE | {"experts": experts}
        return degree(make_case(model={"moe": moe}, layout=REPLICAS | {"kernel": "DeepEP"} | layout))[0]

    assert found(128) == 8
    assert found(12) == 4
    assert found(9) == 1
    assert found(128, pipeline_parallel=1, data_parallel=16) == 16
    # Tensor ranks hold other experts where none of these is cut.
    assert found(128, tensor_parallel=2, data_parallel=4, expert_tensor_parallel=1) == 8


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ({"kernel": "DeepEP", "expert_parallel": 4}, 4),
        ({"kernel": "TE + fsdp2_prefetch"}, 1),
        ({"dispatcher": "alltoall"}, 1),
        ({}, 1),
        # Expert-tensor ranks exchange tokens by it as well.
        ({"kernel": "DeepEP", "tensor_parallel": 2, "data_parallel": 4}, 1),
    ],
)
def test_a_degree_that_is_told_or_wanted_by_nothing_stays(
    make_case: Callable[..., Case], layout: dict[str, Any], expected: int
) -> None:
    expert_parallel, assumptions = degree(make_case(model={"moe": MIXTURE}, layout=REPLICAS | layout))
    assert expert_parallel == expected
    assert "expert parallelism" not in assumptions


def test_a_dense_model_has_no_expert_ranks(make_case: Callable[..., Case]) -> None:
    assert degree(make_case(layout={"kernel": "DeepEP"})) == (1, "")


def test_a_case_may_say_the_groups_of_its_router(make_case: Callable[..., Case]) -> None:
    model, _ = transformer_of_case(make_case(model={"moe": MIXTURE | {"n_group": 4, "topk_group": 2}}).model)
    experts = model.layers[0].mlp
    assert isinstance(experts, Experts)
    assert (experts.groups, experts.groups_per_token) == (4, 2)
