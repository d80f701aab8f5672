"""DeepSpeed's configuration, by hand; its own parser reads it in tests/targets."""

import json
from typing import Any

import pytest
from emitted_plans import layout_of, plan_named

from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import stack_named
from meshwright.planner import Plan, emit
from meshwright.planner.emission.deepspeed.settings import settings
from meshwright.planner.plan_schema import LayoutSection


def laid_out(name: str, stack: str = "", **fields: object) -> Plan:
    """Give one of the plans with other fields of its layout; what was predicted is still of the old one."""
    plan = plan_named(name)
    layout = LayoutSection.of(layout_of({**plan.layout.model_dump(), **fields}))
    inputs = plan.inputs
    if stack:
        entry = inputs.stack.model_copy(update={"entry": stack_named(stack)})
        inputs = inputs.model_copy(update={"stack": entry})
    return plan.model_copy(update={"layout": layout, "inputs": inputs})


def test_batch_is_micro_batch_times_micro_batches_times_replicas() -> None:
    given = settings(laid_out("fsdp", micro_batch=2))
    assert given["train_batch_size"] == 64
    assert (given["train_micro_batch_size_per_gpu"], given["gradient_accumulation_steps"]) == (2, 4)


def test_tensor_ranks_count_as_replicas_when_the_batch_is_checked() -> None:
    given = settings(laid_out("tensor-fsdp", sequence_parallel=False))
    assert given["tensor_parallel"] == {"autotp_size": 8}
    assert "train_batch_size" not in given
    assert (given["train_micro_batch_size_per_gpu"], given["gradient_accumulation_steps"]) == (1, 16)


def test_stages_of_zero() -> None:
    zero = settings(laid_out("fsdp", zero_stage=3))["zero_optimization"]
    assert zero["stage"] == 3
    assert "zero_hpz_partition_size" not in zero
    assert "zero_quantized_weights" not in zero
    none = settings(laid_out("fsdp", zero_stage=0, zero_shard=1))
    assert none["zero_optimization"] == {"stage": 0}
    assert "data_types" not in none


def test_all_three_parts_of_zero_plus_plus() -> None:
    plan = laid_out("hsdp", stack="deepspeed-zeropp", zero_shard=32, backward_shard=8)
    zero = settings(plan)["zero_optimization"]
    assert zero["zero_hpz_partition_size"] == 8
    assert zero["zero_quantized_weights"] is True
    assert zero["zero_quantized_gradients"] is True
    assert settings(plan)["communication_data_type"] == "bf16"


def test_ulysses_is_cut_by_both_sizes() -> None:
    given = settings(laid_out("hybrid-context", context_method="ulysses", ulysses_parallel=1))
    assert (given["sequence_parallel_size"], given["data_parallel_size"]) == (16, 2)
    assert (given["train_batch_size"], given["gradient_accumulation_steps"]) == (16, 8)


def test_experts_are_spread_beside_data_parallelism() -> None:
    plan = laid_out(
        "moe",
        tensor_parallel=1,
        sequence_parallel=False,
        pipeline_parallel=1,
        data_parallel=64,
        zero_stage=2,
        zero_shard=64,
    )
    assert json.loads(emit(plan, "deepspeed").files["deepspeed.json"])["expert_parallel"] == {
        "enabled": True,
        "autoep_size": 8,
    }


def test_hosts_are_in_the_order_of_the_ranks() -> None:
    hosts = emit(laid_out("hsdp", zero_shard=32), "deepspeed").files["hostfile"]
    assert [line for line in hosts.splitlines() if not line.startswith("#")] == [f"node-{n} slots=8" for n in range(4)]


@pytest.mark.parametrize(
    ("name", "fields", "path", "feature"),
    [
        ("dense-3d", {}, "layout.pipeline_parallel", "from a model's code"),
        ("hsdp", {}, "layout.zero_shard", "over all 32 ranks"),
        ("tensor-fsdp", {}, "layout.sequence_parallel", "doesn't share tokens"),
        ("long-context", {}, "layout.context_parallel", "no Ulysses beside tensor"),
        ("hybrid-context", {}, "layout.context_method", "no hybrid method"),
        ("fsdp", {"recompute": "selective"}, "layout.recompute", "whole layers or nothing"),
        ("fsdp", {"recompute_layers": 3}, "layout.recompute_layers", "all layers or none"),
        ("fsdp", {"gradient_shard": 2}, "layout.gradient_shard", "shards gradients over the same ranks"),
        ("fsdp", {"backward_shard": 1}, "layout.backward_shard", "doesn't keep parameters whole"),
        (
            "tensor-fsdp",
            {"sequence_parallel": False, "backward_shard": 4},
            "layout.backward_shard",
            "no secondary partition beside tensor",
        ),
        # 8 key heads can't be cut over 64 ranks.
        (
            "tensor-fsdp",
            {"tensor_parallel": 64, "data_parallel": 1, "zero_stage": 0, "zero_shard": 1},
            "layout.tensor_parallel",
            "the 8 key heads",
        ),
    ],
)
def test_what_the_configuration_lacks_is_refused(name: str, fields: dict[str, Any], path: str, feature: str) -> None:
    with pytest.raises(InputError, match=feature) as refusal:
        emit(laid_out(name, **fields), "deepspeed")
    assert refusal.value.path == path


def test_without_a_pipeline_its_ranks_see_sequences_of_their_own() -> None:
    emission = emit(plan_named("pipeline-fsdp"), "deepspeed", relax=True)
    layout = emission.plan.layout
    assert (layout.tensor_parallel, layout.pipeline_parallel, layout.data_parallel) == (4, 1, 16)
    assert emission.plan.mesh.devices == 64
    assert layout.zero_shard == 16
    assert "pipeline_parallel: 4 -> 1" in emission.relaxed


def test_two_axes_too_many_are_left_out_one_after_another() -> None:
    emission = emit(plan_named("moe"), "deepspeed", relax=True)
    layout = emission.plan.layout.layout()
    assert layout.world_size == 64
    assert (layout.expert_parallel, layout.expert_tensor_parallel) == (1, layout.tensor_parallel)


def test_a_batch_too_small_for_so_many_replicas_is_refused() -> None:
    with pytest.raises(InputError, match="from a model's code"):  # 15360 sequences over 2048 replicas
        emit(plan_named("latent-attention"), "deepspeed", relax=True)
