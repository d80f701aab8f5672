"""`check`: nothing where a plan still holds; a readable line for whatever moved, and why."""

from collections.abc import Callable
from typing import Any

import pytest

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.errors import InputError
from meshwright.catalog.model_entry import ModelEntry
from meshwright.costmodels.layout import Recompute
from meshwright.planner import Plan, check_plan, job_inputs, plan
from meshwright.planner.check import differences, replan
from meshwright.planner.plan_file import plan_yaml


def changed(source: Plan, section: str, **update: object) -> Plan:
    """Give a plan with some fields of one section replaced."""
    return source.model_copy(update={section: getattr(source, section).model_copy(update=update)})


@pytest.fixture
def named_plan(
    monkeypatch: pytest.MonkeyPatch,
    toy_model: Callable[..., ModelEntry],
    toy_cluster: Callable[..., ClusterEntry],
    toy_device: Callable[..., DeviceEntry],
) -> Plan:
    """Give a plan of which the model, the cluster and the device came from a catalog that holds the toys."""
    monkeypatch.setattr(job_inputs, "find_model", lambda _: toy_model())
    monkeypatch.setattr(job_inputs, "find_cluster", lambda _: toy_cluster(8, device="toy-device"))
    monkeypatch.setattr(job_inputs, "device_named", lambda _: toy_device())
    return plan("toy-model", "toy-cluster:8", global_batch=16, sequence_length=2048)


def test_a_plan_made_today_holds(toy_plan: Plan) -> None:
    assert check_plan(toy_plan) == ()
    assert plan_yaml(replan(toy_plan)) == plan_yaml(toy_plan)


def test_a_plan_from_the_catalog_holds(named_plan: Plan) -> None:
    inputs = named_plan.inputs
    assert [inputs.model.from_catalog, inputs.cluster.from_catalog, inputs.device.from_catalog] == [True] * 3
    assert check_plan(named_plan) == ()


def test_a_prediction_that_moved(toy_plan: Plan) -> None:
    new = toy_plan.predicted.step_time_s
    old = changed(toy_plan, "predicted", step_time_s=new * 1.25)
    assert differences(old, toy_plan) == (f"predicted.step_time_s: {new * 1.25:.9g} -> {new:.9g} (-20.00%)",)
    assert check_plan(old) == differences(old, toy_plan)


def test_a_prediction_that_hardly_moved(toy_plan: Plan) -> None:
    assert differences(changed(toy_plan, "predicted", mfu=toy_plan.predicted.mfu * (1 + 5e-7)), toy_plan) == ()
    assert len(differences(changed(toy_plan, "predicted", mfu=toy_plan.predicted.mfu * (1 + 5e-6)), toy_plan)) == 1


def test_a_cause_that_is_new(toy_plan: Plan) -> None:
    breakdown = {cause: value for cause, value in toy_plan.predicted.time_breakdown_s.items() if cause != "matmul"}
    old = changed(toy_plan, "predicted", time_breakdown_s=breakdown)
    (line,) = differences(old, toy_plan)
    assert line.startswith("predicted.time_breakdown_s.matmul: nothing -> ")


def test_a_layout_that_moved_is_told_without_what_follows_from_it(toy_plan: Plan) -> None:
    old = changed(toy_plan, "layout", micro_batch=16, recompute=Recompute.FULL)
    old = changed(old, "mesh", devices=4)
    assert differences(old, toy_plan) == (
        f"layout.recompute: full -> {toy_plan.layout.recompute}",
        f"layout.micro_batch: 16 -> {toy_plan.layout.micro_batch} ({toy_plan.layout.micro_batch / 16 - 1:+.2%})",
    )


def test_stages_edited_by_hand(toy_plan: Plan) -> None:
    first = toy_plan.stages[0].model_copy(update={"embedding": False})
    old = toy_plan.model_copy(update={"stages": (first, *toy_plan.stages[1:])})
    assert differences(old, toy_plan) == ("stages.0.embedding: False -> True",)
    shorter = toy_plan.model_copy(update={"stages": (*toy_plan.stages, first)})
    count = len(toy_plan.stages)
    assert differences(shorter, toy_plan) == (f"stages: {count + 1} items -> {count} items",)


def test_a_catalog_that_changed(
    named_plan: Plan, monkeypatch: pytest.MonkeyPatch, toy_device: Callable[..., DeviceEntry]
) -> None:
    compute: dict[str, Any] = toy_device().compute.model_dump(mode="json")
    slower = toy_device(compute=compute | {"peak": {"bf16": "800 TFLOP/s"}, "source": "another page"})
    monkeypatch.setattr(job_inputs, "device_named", lambda _: slower)
    moved = check_plan(named_plan)
    assert any(line.startswith("predicted.step_time_s: ") for line in moved)
    assert "inputs.device.entry.compute.peak.bf16: 989 TFLOP/s -> 800 TFLOP/s" in moved
    assert "inputs.device.entry.compute.peak.fp32: 67 TFLOP/s -> nothing" in moved
    assert not any("another page" in line for line in moved)


def test_a_catalog_of_which_only_the_prose_changed(
    named_plan: Plan, monkeypatch: pytest.MonkeyPatch, toy_device: Callable[..., DeviceEntry]
) -> None:
    monkeypatch.setattr(job_inputs, "device_named", lambda _: toy_device(vendor="renamed"))
    assert check_plan(named_plan) == ()


def test_what_fitted_no_longer_does(
    named_plan: Plan, monkeypatch: pytest.MonkeyPatch, toy_device: Callable[..., DeviceEntry]
) -> None:
    memory = toy_device().memory.model_dump(mode="json") | {"capacity": "1.2 GiB"}
    monkeypatch.setattr(job_inputs, "device_named", lambda _: toy_device(memory=memory))
    (line,) = check_plan(named_plan)
    assert line.startswith("nothing fits any more: no layout of toy-model")


def test_a_name_that_left_the_catalog(named_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(InputError, match="no cluster is called 'toy-cluster'"):
        check_plan(named_plan)


def test_a_moved_runner_up_is_a_difference(toy_plan: Plan) -> None:
    other = toy_plan.alternatives[0]
    moved = toy_plan.model_copy(
        update={"alternatives": (other.model_copy(update={"slower_by": -0.5}), *toy_plan.alternatives[1:])}
    )
    assert any(line.startswith("alternatives.0.slower_by") for line in check_plan(moved))
    assert any(line.startswith("alternatives") for line in check_plan(toy_plan.model_copy(update={"alternatives": ()})))


def test_a_difference_of_nearly_nothing_may_move_by_as_much(toy_plan: Plan) -> None:
    def nudged(by: float) -> Plan:
        others = [other.model_copy(update={"slower_by": other.slower_by + by}) for other in toy_plan.alternatives]
        moved = toy_plan.model_copy(update={"alternatives": tuple(others)})
        return changed(moved, "search", gap=toy_plan.search.gap + by)

    assert differences(nudged(5e-7), toy_plan) == ()
    assert len(differences(nudged(5e-6), toy_plan)) == len(toy_plan.alternatives) + 1
