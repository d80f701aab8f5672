"""Targets: what each launcher runs, and what keeping to that costs."""

from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import stack_named
from meshwright.catalog.model_entry import ModelEntry
from meshwright.cli.app import app
from meshwright.costmodels.layout import LayoutTable
from meshwright.costmodels.predict import predict_time
from meshwright.planner import Plan, check_plan, plan
from meshwright.planner.consistency import contradictions
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


def test_what_launchers_run_less_of_than_their_stack(toy_model: MakeModel, toy_cluster: MakeCluster) -> None:
    model, cluster = toy_model(layers=8, hidden=2048, heads=16, experts=EXPERTS), toy_cluster(16)
    alone = planned(model, cluster, target="fsdp2")
    assert alone.layout.data_parallel == 16
    assert alone.layout.expert_parallel == 1
    titan = planned(model, cluster, target="torchtitan")
    assert {one.layout.expert_tensor_parallel for one in (titan, *titan.alternatives)} == {1}
    broken = titan.layout.model_copy(update={"tensor_parallel": 2, "expert_tensor_parallel": 2})
    said = [text for _, text in contradictions(titan.model_copy(update={"layout": broken}))]
    assert "isn't within what --max expert_tensor_parallel=1 asks for" in said


def test_limits_and_a_target_hold_together() -> None:
    limits = Limits(fix={"data_parallel": 8}, max={"tensor_parallel": 4, "micro_batch": 2})
    both = limits_under(Target.FSDP2, limits)
    assert both.fix == limits.fix
    assert (both.max["tensor_parallel"], both.max["pipeline_parallel"], both.max["micro_batch"]) == (1, 1, 2)
    assert limits_under(None, limits) is limits_under(Target.MEGATRON_CORE, limits) is limits
    with pytest.raises(InputError, match=r"target fsdp2: limits\.fix\.pipeline_parallel: is 2, but at most 1"):
        limits_under(Target.FSDP2, Limits(fix={"pipeline_parallel": 2}))


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
