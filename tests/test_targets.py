"""Targets: what each launcher runs, and what keeping to that costs."""

from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.errors import Infeasible, InputError
from meshwright.catalog.lookup import stack_named
from meshwright.catalog.model_entry import ModelEntry
from meshwright.cli.app import app
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.predict import predict_time
from meshwright.planner import Plan, check_plan, plan
from meshwright.planner.consistency import contradictions
from meshwright.planner.device_numbers import device_numbers
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout.limits import Limits
from meshwright.planner.targets import LAUNCHERS, Target, limits_under, unrestricted

MakeModel = Callable[..., ModelEntry]
MakeCluster = Callable[..., ClusterEntry]
EXPERTS = {"experts": 8, "top_k": 2, "ffn_hidden": 4096}


def planned(model: ModelEntry, cluster: ClusterEntry, **more: object) -> Plan:
    return plan(model, cluster, global_batch=32, sequence_length=2048, top=3, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", list(Target))
def test_a_target_is_its_stack_and_costs_what_the_unrestricted_search_says(
    toy_model: MakeModel, toy_cluster: MakeCluster, target: Target
) -> None:
    model, cluster = toy_model(layers=8, hidden=2048, heads=16, experts=EXPERTS), toy_cluster(16)
    made = planned(model, cluster, target=target)
    free = made.search.unrestricted
    assert free is not None
    assert made.inputs.stack.entry == stack_named(LAUNCHERS[target].stack)
    open_stack = unrestricted(made.inputs.stack.entry)
    other = planned(model, cluster, stack=open_stack)
    assert free.layout == other.layout
    assert free.value == other.predicted.step_time_s
    assert free.costs == pytest.approx(made.predicted.step_time_s / free.value - 1, abs=1e-8)
    assert free.costs >= 0
    job = job_of(made.inputs)
    again = predict_time(job, LayoutTable.of([free.layout.layout()])).step_time_s[0]  # by the same constants
    assert again == pytest.approx(free.value, rel=1e-8)
    assert list(contradictions(made)) == []
    assert check_plan(made) == ()


def test_where_time_ran_out_the_cost_of_a_target_is_between_bounds(
    toy_model: MakeModel, toy_cluster: MakeCluster
) -> None:
    model, cluster = toy_model(layers=8, hidden=2048, heads=16), toy_cluster(16)
    cut, whole = (planned(model, cluster, target="torchtitan", time_limit_s=limit_s) for limit_s in (1e-9, None))
    assert cut.search.unrestricted is not None
    assert whole.search.unrestricted is not None
    assert cut.search.unrestricted.lower_bound <= whole.search.unrestricted.value <= cut.search.unrestricted.value
    assert whole.search.unrestricted.lower_bound == whole.search.unrestricted.value
    assert cut.search.unrestricted.costs >= 0
    assert list(contradictions(cut)) == []


def test_what_launchers_run_less_of_than_their_stack(toy_model: MakeModel, toy_cluster: MakeCluster) -> None:
    model, cluster = toy_model(layers=8, hidden=2048, heads=16, experts=EXPERTS), toy_cluster(16)
    alone = planned(model, cluster, target="fsdp2")
    assert alone.layout.data_parallel == 16
    assert alone.layout.expert_parallel == 1
    titan = planned(model, cluster, target="torchtitan")
    assert {one.layout.expert_tensor_parallel for one in (titan, *titan.alternatives)} == {1}
    broken = titan.layout.model_copy(update={"tensor_parallel": 2, "expert_tensor_parallel": 2})
    said = [text for _, text in contradictions(titan.model_copy(update={"layout": broken}))]
    assert "isn't within what --target torchtitan (at most expert_tensor_parallel=1) asks for" in said


def test_limits_and_a_target_hold_together() -> None:
    limits = Limits(fix={"data_parallel": 8}, max={"tensor_parallel": 4, "micro_batch": 2})
    both = limits_under(Target.FSDP2, limits)
    assert both.options() == ("--target fsdp2", *limits.options())
    assert both.allows("data_parallel", value=8)
    assert not both.allows("tensor_parallel", value=2)
    assert not both.allows("micro_batch", value=3)
    layout = Layout(data_parallel=8, tensor_parallel=2, micro_batch=4)
    assert both.broken_by(layout, layers=8) == (
        "--target fsdp2 (at most tensor_parallel=1)",
        "--max micro_batch=2",
    )
    assert limits_under(None, limits) is limits


def test_what_a_target_does_not_run_is_its_own_doing() -> None:
    with pytest.raises(InputError) as caught:
        limits_under(Target.FSDP2, Limits(fix={"pipeline_parallel": 2}))
    assert str(caught.value) == (
        "limits.fix.pipeline_parallel: is 2, but the target fsdp2 runs pipeline_parallel=1 at most"
    )
    assert caught.value.hint == "leave out the limit, or choose another target"
    with pytest.raises(InputError, match=r"limits\.forbid\.tensor_parallel: leaves no value of it, since the target"):
        limits_under(Target.FSDP2, Limits(forbid={"tensor_parallel": (1,)}))
    with pytest.raises(InputError, match=r"zero_stage: is 1, but the target torchtitan runs no zero_stage=1"):
        limits_under(Target.TORCHTITAN, Limits(fix={"zero_stage": 1}))
    with pytest.raises(InputError, match=r"recompute: leaves no value of it, since the target deepspeed"):
        limits_under(Target.DEEPSPEED, Limits(forbid={"recompute": ("none", "full")}))


def test_devices_that_a_target_can_use(toy_model: MakeModel, toy_cluster: MakeCluster) -> None:
    """24 replicas don't share 32 sequences: FSDP alone uses 16 devices, where a pipeline of three would use all."""
    model, cluster = toy_model(layers=6, hidden=2048, heads=16), toy_cluster(24)
    alone = planned(model, cluster, target="fsdp2")
    assert (alone.mesh.devices, alone.mesh.idle) == (16, 8)
    job = alone.inputs.job.model_copy(update={"target": Target.TORCHTITAN})
    assert device_numbers(alone.inputs.model_copy(update={"job": job}))[0] == 24
    assert alone.search.unrestricted is not None
    assert alone.search.unrestricted.costs >= 0
    assert check_plan(alone) == ()
    with pytest.raises(Infeasible) as caught:
        planned(model, cluster, target="fsdp2", limits={"fix": {"data_parallel": 24}})
    assert "on 16 devices" in caught.value.message
    assert "under --target fsdp2 --fix data_parallel=24 is legal" in caught.value.message
    assert caught.value.hint == "with the rest as it is, legal would be data_parallel=16"


def test_a_target_has_its_own_stack(toy_model: MakeModel, toy_cluster: MakeCluster) -> None:
    with pytest.raises(InputError, match="stack: is given beside the target fsdp2"):
        planned(toy_model(), toy_cluster(8), target="fsdp2", stack="fsdp2")
    with pytest.raises(InputError, match="target: "):
        planned(toy_model(), toy_cluster(8), target="alpa")


def test_every_launcher_has_a_stack() -> None:
    assert set(LAUNCHERS) == set(Target)
    for launcher in LAUNCHERS.values():
        assert stack_named(launcher.stack).name == launcher.stack


def test_a_target_on_the_command_line() -> None:
    words = ["plan", "llama-3.1-8b", "dgx-h100:8", "--global-batch", "64", "--sequence-length", "4096"]
    result = CliRunner().invoke(app, [*words, "--target", "fsdp2"])
    assert result.exit_code == 0, result.output
    assert "Keeping to what fsdp2 runs costs " in result.stdout
