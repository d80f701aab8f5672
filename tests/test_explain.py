"""Explanations add up: shares to one, losses to the difference of two steps, and every cause has a kind."""

from collections.abc import Callable

import pytest

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.predict import predict_time
from meshwright.planner import Plan
from meshwright.planner.explain import BOUND_OF_CAUSE, Bound, explain_plan


def with_figures(plan: Plan, **update: object) -> Plan:
    return plan.model_copy(update={"predicted": plan.predicted.model_copy(update=update)})


def test_shares_add_up_and_fall(toy_plan: Plan) -> None:
    explanation = explain_plan(toy_plan)
    for parts, whole in (
        (explanation.time, toy_plan.predicted.step_time_s),
        (explanation.bounds, toy_plan.predicted.step_time_s),
        (explanation.memory, toy_plan.predicted.peak_memory_bytes.allocated),
        (explanation.rejected, sum(toy_plan.search.rejected.values())),
    ):
        assert sum(part.share for part in parts) == pytest.approx(1)
        assert sum(part.amount for part in parts) == pytest.approx(whole, rel=1e-6)
        assert [part.amount for part in parts] == sorted((part.amount for part in parts), reverse=True)
        assert min(part.amount for part in parts) > 0


@pytest.mark.parametrize(
    ("breakdown", "bound"),
    [
        ({"matmul": 5.0, "bubble": 4.0, "tensor_communication": 1.0}, Bound.COMPUTE),
        ({"matmul": 3.0, "attention": 2.0, "gradient_communication": 5.0}, Bound.COMPUTE),
        (
            {"matmul": 4.0, "bubble": 2.0, "tensor_communication": 1.5, "gradient_communication": 1.5},
            Bound.COMMUNICATION,
        ),
        ({"matmul": 4.0, "bubble": 3.5, "tensor_communication": 2.0}, Bound.BUBBLE),
        ({"matmul": 1.0, "host": 9.0}, Bound.OVERHEAD),
    ],
)
def test_what_a_step_waits_for(toy_plan: Plan, breakdown: dict[str, float], bound: Bound) -> None:
    assert explain_plan(with_figures(toy_plan, time_breakdown_s=breakdown)).bound is bound


def test_every_cause_has_a_kind(toy_job: Callable[..., Job]) -> None:
    causes = predict_time(toy_job(1), LayoutTable.of([Layout()])).breakdown
    assert {str(cause) for cause in causes} <= set(BOUND_OF_CAUSE)


def test_when_memory_binds(toy_plan: Plan) -> None:
    peak = toy_plan.predicted.peak_memory_bytes.nvidia_smi
    assert explain_plan(with_figures(toy_plan, memory_limit_bytes=int(peak / 0.91))).memory_binds
    roomy = explain_plan(with_figures(toy_plan, memory_limit_bytes=int(peak / 0.89)))
    assert not roomy.memory_binds
    assert roomy.memory_share == pytest.approx(0.89)


def test_alternatives_lose_what_their_causes_lose(toy_plan: Plan) -> None:
    explanation = explain_plan(toy_plan)
    assert len(explanation.alternatives) == len(toy_plan.alternatives)
    for contrast, section in zip(explanation.alternatives, toy_plan.alternatives, strict=True):
        assert contrast.layout == section.layout.layout()
        assert contrast.step_time_s == pytest.approx(section.step_time_s, rel=1e-8)
        assert contrast.slower_by == pytest.approx(section.slower_by, abs=1e-8)
        assert contrast.peak_bytes == pytest.approx(section.peak_memory_bytes, rel=1e-8)
        lost = sum(loss.amount for loss in contrast.time)
        assert lost == pytest.approx(section.step_time_s - toy_plan.predicted.step_time_s, abs=1e-7)
        sizes = [abs(loss.amount) for loss in contrast.time]
        assert sizes == sorted(sizes, reverse=True)
        assert contrast.changes == {
            name: (getattr(toy_plan.layout, name), getattr(section.layout, name))
            for name in type(section.layout).model_fields
            if getattr(toy_plan.layout, name) != getattr(section.layout, name)
        }
        assert contrast.changes
