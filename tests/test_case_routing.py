"""The routing of published steps: that of their source's benchmarks, where these say it."""

from collections.abc import Callable
from typing import Any

import pytest

from meshwright.costmodels.transformer import Experts
from meshwright.planner.accuracy import estimate
from meshwright.planner.accuracy.case import Case
from meshwright.planner.accuracy.case_model import transformer_of_case
from meshwright.planner.accuracy.case_routing import with_published_routing
from meshwright.planner.accuracy.estimate import Predicted

MIXTURE = {"experts": 8, "top_k": 2, "expert_ffn_hidden": 512}
PUBLISHED = "a table of steps"


@pytest.fixture
def make_case(case_document: Callable[..., dict[str, Any]]) -> Callable[..., Case]:
    return lambda **changes: Case.model_validate(case_document(**changes))


def dealt(case: Case) -> bool:
    model, assumptions = with_published_routing(transformer_of_case(case.model)[0], case)
    marks = {layer.mlp.consecutive for layer in model.layers if isinstance(layer.mlp, Experts)}
    assert any("deal out experts" in assumption for assumption in assumptions) == (True in marks)
    assert len(marks) <= 1
    return True in marks


def test_published_steps_of_a_framework_are_of_its_benchmarks_gate(make_case: Callable[..., Case]) -> None:
    mixture, framework = {"moe": MIXTURE}, "NeMo AutoModel (PyTorch FSDP2)"
    assert dealt(make_case(model=mixture, framework=framework, source=PUBLISHED))
    # Others' steps, a user's own, dense ones, and those whose loads were measured are not.
    assert not dealt(make_case(model=mixture, framework="Megatron-Core", source=PUBLISHED))
    assert not dealt(make_case(model=mixture, framework=framework, source=None))
    assert not dealt(make_case(framework=framework, source=PUBLISHED))
    uneven = {"moe": MIXTURE | {"load_spread": 0.3}}
    assert not dealt(make_case(model=uneven, framework=framework, source=PUBLISHED))


def test_dealt_tokens_are_sent_less_far_and_it_is_said(make_case: Callable[..., Case]) -> None:
    def predicted(source: str | None) -> Predicted:
        layout = {"tensor_parallel": 1, "pipeline_parallel": 1, "data_parallel": 16, "expert_parallel": 16}
        moe = MIXTURE | {"experts": 32, "top_k": 4}
        case = make_case(model={"moe": moe}, layout=layout, framework="NeMo AutoModel", source=source)
        (found,) = estimate([case])
        assert found.predicted is not None
        return found.predicted

    own, published = predicted(None), predicted(PUBLISHED)
    assert published.breakdown["expert_communication"] < own.breakdown["expert_communication"]
    assert [each for each in published.assumptions if each not in own.assumptions] == [
        "its source's benchmarks deal out experts in turn, so that those of a token are next to one another"
    ]
