"""PyTorch's own tracker finds the memory that plans foretell."""

import pytest
from oracle_plans import LAYOUTS, fsdp2_plan, small_plan

from meshwright.planner.memory_oracle import Comparison, expectations, oracle_workload, require_agreement
from meshwright.runtime.oracle import held_at_peaks

# The known differences leave this much; the bar is 5 %.
CLASSES_AGREE = 0.02

PLANS = {
    **{name: small_plan(fields, global_batch=batch) for name, (fields, batch) in LAYOUTS.items()},
    "fp32": small_plan({"data_parallel": 8, "zero_stage": 3, "zero_shard": 8}, global_batch=16, precision="fp32"),
    "llama-3.1-8b on 64 ranks": fsdp2_plan(
        "llama-3.1-8b",
        {"data_parallel": 64, "zero_stage": 3, "zero_shard": 64},
        global_batch=128,
        sequence_length=8192,
    ),
}


@pytest.fixture(scope="module")
def comparisons() -> dict[str, list[Comparison]]:
    asked, expected = [], []
    for name, plan in PLANS.items():
        workload = oracle_workload(plan, file=name)
        for each in expectations(plan, workload):
            asked.append((workload, each.rank))
            expected.append((name, each))
    found: dict[str, list[Comparison]] = {}
    for (name, each), held in zip(expected, held_at_peaks(asked), strict=True):
        found.setdefault(name, []).append(Comparison(expectation=each, tracked=held))
    return found


@pytest.mark.parametrize("name", PLANS)
def test_plan_and_tracker_agree(name: str, comparisons: dict[str, list[Comparison]]) -> None:
    require_agreement(comparisons[name])
    for each in comparisons[name]:
        expected, tracked = each.expectation.expected, each.tracked
        assert tracked.parameters == pytest.approx(expected.parameters, rel=CLASSES_AGREE)
        assert tracked.optimizer == pytest.approx(expected.optimizer, rel=CLASSES_AGREE)


def test_most_plans_agree_without_known_differences(comparisons: dict[str, list[Comparison]]) -> None:
    errors = [max(found, key=lambda each: each.tracked.total).plain_error for found in comparisons.values()]
    assert sum(abs(error) <= 0.05 for error in errors) >= 5
