"""Accelerate's configuration, by hand; its own parser reads it in tests/targets."""

from typing import Any

import pytest
import yaml
from emitted_plans import layout_of, plan_named

from meshwright.catalog.errors import InputError
from meshwright.catalog.precision import Precision
from meshwright.planner import Plan, emit
from meshwright.planner.emission.accelerate.settings import settings
from meshwright.planner.plan_schema import LayoutSection


def laid_out(name: str, **fields: object) -> Plan:
    plan = plan_named(name)
    layout = LayoutSection.of(layout_of({**plan.layout.model_dump(), **fields}))
    return plan.model_copy(update={"layout": layout})


def degrees(plan: Plan) -> dict[str, Any]:
    given = settings(plan)["parallelism_config"]
    return {name.removeprefix("parallelism_config_"): value for name, value in given.items()}


def test_sharded_copies_are_replicated() -> None:
    assert degrees(plan_named("hsdp")) == {"dp_replicate_size": 4, "dp_shard_size": 8, "cp_size": 1, "tp_size": 1}


def test_context_ranks_share_the_shards() -> None:
    plan = laid_out("long-context", sequence_parallel=False, zero_stage=3)
    assert degrees(plan) == {
        "dp_replicate_size": 1,
        "dp_shard_size": 4,
        "cp_size": 8,
        "tp_size": 8,
        "cp_comm_strategy": "allgather",
    }


@pytest.mark.parametrize(("stage", "reshards"), [(2, False), (3, True)])
def test_parameters_are_sharded_between_the_passes_or_not(stage: int, reshards: bool) -> None:
    given = settings(laid_out("fsdp", zero_stage=stage))
    assert given["fsdp_config"]["fsdp_reshard_after_forward"] is reshards
    assert given["fsdp_config"]["fsdp_activation_checkpointing"] is True


@pytest.mark.parametrize(("name", "kind"), [("single-device", "NO"), ("fsdp", "MULTI_GPU")])
def test_plain_replicas_need_no_fsdp(name: str, kind: str) -> None:
    given = settings(laid_out(name, zero_stage=0, zero_shard=1))
    assert given["distributed_type"] == kind
    assert "fsdp_config" not in given
    assert "parallelism_config" not in given


def test_the_script_is_told_the_batch() -> None:
    files = emit(plan_named("hsdp"), "accelerate").files
    assert "export ACCELERATE_GRADIENT_ACCUMULATION_STEPS=2\n" in files["run.sh"]
    assert "export PLAN_MICRO_BATCH=1\n" in files["run.sh"]
    assert yaml.safe_load(files["accelerate.yaml"])["num_processes"] == 32


def test_fp8_is_by_the_library_of_the_stack() -> None:
    plan = plan_named("fsdp")
    job = plan.inputs.job.model_copy(update={"precision": Precision.FP8})
    narrow = plan.model_copy(update={"inputs": plan.inputs.model_copy(update={"job": job})})
    assert settings(narrow)["fp8_config"] == {"backend": "AO"}


@pytest.mark.parametrize(
    ("name", "fields", "path", "feature"),
    [
        ("dense-3d", {}, "layout.pipeline_parallel", "has no pipelines"),
        ("tensor-fsdp", {}, "layout.sequence_parallel", "leaves it to the model's own plan"),
        ("hybrid-context", {}, "layout.context_method", "no hybrid method"),
        ("fsdp", {"zero_stage": 1}, "layout.zero_stage", "shards gradients with the optimizer states"),
        ("tensor-fsdp", {"sequence_parallel": False, "zero_stage": 0}, "layout.zero_stage", "plain replicas"),
        ("fsdp", {"zero_shard": 1}, "layout.zero_shard", "whole groups"),
        ("fsdp", {"backward_shard": 2}, "layout.parameter_shard", "over the same ranks"),
        ("fsdp", {"recompute_layers": 2}, "layout.recompute", "all layers as a whole"),
    ],
)
def test_what_the_configuration_lacks_is_refused(name: str, fields: dict[str, Any], path: str, feature: str) -> None:
    with pytest.raises(InputError, match=feature) as refusal:
        emit(laid_out(name, **fields), "accelerate")
    assert refusal.value.path == path


def test_relaxed_as_the_nearest_mesh() -> None:
    emission = emit(plan_named("gqa-tensor"), "accelerate", relax=True)
    assert emission.plan.mesh.devices == 64
    assert emission.plan.layout.zero_stage in (2, 3)
    assert emission.plan.layout.recompute_layers is None
    assert degrees(emission.plan) == {"dp_replicate_size": 1, "dp_shard_size": 8, "cp_size": 1, "tp_size": 8}
