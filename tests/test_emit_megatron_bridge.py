"""Recipes for Megatron-Bridge: each field held against the list of its own, and by hand where that wouldn't notice."""

from typing import Any

import pytest
from emitted_plans import PLANS, layout_of, plan_named
from listed_fields import complaints, listed
from recipe_reading import Sections, read_recipe, recipe_of_format

from meshwright.catalog.errors import InputError
from meshwright.catalog.lookup import stack_named
from meshwright.catalog.precision import Precision
from meshwright.planner import Plan, emit
from meshwright.planner.plan_schema import LayoutSection

KNOWN = listed("megatron_bridge", "0.6.2")


def text_of(plan: Plan) -> str:
    return emit(plan, "megatron-bridge").files["meshwright_plan.py"]


def said(name: str) -> Sections:
    return read_recipe(text_of(plan_named(name)))


def asked(name: str, **fields: object) -> Plan:
    plan = plan_named(name)
    job = plan.inputs.job.model_copy(update=fields)
    return plan.model_copy(update={"inputs": plan.inputs.model_copy(update={"job": job})})


def laid_out(name: str, **fields: object) -> Plan:
    plan = plan_named(name)
    layout = LayoutSection.of(layout_of({**plan.layout.model_dump(), **fields}))
    return plan.model_copy(update={"layout": layout})


@pytest.mark.parametrize("name", PLANS)
def test_each_field_is_one_of_its_own_with_a_value_it_takes(name: str) -> None:
    assert list(complaints(KNOWN, said(name))) == []


BREAKS: dict[str, tuple[str, str, object]] = {
    "unknown section": ("parallelism", "tp", 8),
    "unknown field": ("model", "tensor_parallel", 8),
    "degree of a wrong type": ("model", "tensor_model_parallel_size", "8"),
    "switch of a wrong type": ("ddp", "use_distributed_optimizer", 1),
    "unknown method": ("model", "cp_comm_type", "ring"),
    "unknown module": ("model", "recompute_modules", ["attention"]),
    "unknown sharding": ("ddp", "data_parallel_sharding_strategy", "everything"),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_the_list_shows_what_is_broken(broken: str) -> None:
    section, name, value = BREAKS[broken]
    given = said("dense-3d")
    given.setdefault(section, {})[name] = value
    assert len(list(complaints(KNOWN, given))) == 1


def test_degrees_and_batch_by_hand() -> None:
    given = said("moe")
    model = given["model"]
    assert (model["tensor_model_parallel_size"], model["pipeline_model_parallel_size"]) == (2, 4)
    assert (model["expert_model_parallel_size"], model["expert_tensor_parallel_size"]) == (8, 1)
    assert (model["num_moe_experts"], model["moe_router_topk"]) == (8, 2)
    assert model["sequence_parallel"] is True
    assert given["train"] == {"micro_batch_size": 1, "global_batch_size": 256}
    assert model["seq_length"] == given["dataset"]["seq_length"] == 4096
    assert given["tokenizer"]["vocab_size"] == 32000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("interleaved", {"virtual_pipeline_model_parallel_size": 2}),
        ("uneven", {"pipeline_model_parallel_layout": "Et*7|" + "t*8|" * 14 + "t*7L"}),
        ("hybrid-context", {"cp_comm_type": "a2a+p2p", "hierarchical_context_parallel_sizes": [8, 2]}),
        ("dense-3d", {"recompute_granularity": "selective", "recompute_modules": ["core_attn"]}),
        ("gqa-tensor", {"recompute_method": "block", "recompute_num_layers": 70, "num_query_groups": 8}),
        ("latent-attention", {"moe_layer_freq": [0] * 3 + [1] * 58, "q_lora_rank": 1536, "qk_layernorm": True}),
        ("fsdp", {"gated_linear_unit": True, "activation_func": "silu", "add_bias_linear": False}),
    ],
)
def test_what_is_said_of_the_model(name: str, expected: dict[str, Any]) -> None:
    model = said(name)["model"]
    assert {field: model[field] for field in expected} == expected


def test_what_its_plain_model_has_by_default_is_said_otherwise() -> None:
    model = said("single-device")["model"]
    assert model["position_embedding_type"] == "rope"  # its default: learned
    assert model["share_embeddings_and_output_weights"] is False  # its default: shared
    assert model["cross_entropy_loss_fusion"] is False  # its default: fused


def test_the_optimizer_is_not_distributed_unless_the_plan_says_so() -> None:
    """Its optimizer is, by default, and makes the gradients' buffers follow."""
    given = read_recipe(text_of(laid_out("dense-3d", zero_stage=0, zero_shard=1)))
    assert given["ddp"]["use_distributed_optimizer"] is given["optimizer"]["use_distributed_optimizer"] is False
    given = said("optimizer-instances")
    assert given["ddp"] == {"use_distributed_optimizer": True, "num_distributed_optimizer_instances": 4}


def test_fsdp_is_said_in_all_its_places() -> None:
    given = said("hsdp")
    assert given["ddp"]["use_megatron_fsdp"] is given["dist"]["use_megatron_fsdp"] is True
    assert given["ddp"]["data_parallel_sharding_strategy"] == "optim_grads_params"
    assert given["checkpoint"] == {"ckpt_format": "fsdp_dtensor"}
    assert given["model"]["gradient_accumulation_fusion"] is False


@pytest.mark.parametrize(
    ("precision", "recipe", "expected"),
    [
        (Precision.BF16, "bf16_mixed", {"grad_reduce_in_fp32": True}),
        (
            Precision.FP8,
            "bf16_with_fp8_delayed_scaling_mixed",
            {"grad_reduce_in_fp32": True, "fp8_param_gather": False},
        ),
        (
            Precision.MXFP8,
            "bf16_with_mxfp8_mixed",
            {"grad_reduce_in_fp32": True, "fp8_param_gather": False, "reuse_grad_buf_for_mxfp8_param_ag": False},
        ),
        (Precision.NVFP4, "bf16_with_nvfp4_mixed", {"grad_reduce_in_fp32": True, "fp4_param_gather": False}),
    ],
)
def test_formats_by_its_recipes(precision: Precision, recipe: str, expected: dict[str, bool]) -> None:
    text = text_of(asked("gqa-tensor", precision=precision))
    assert recipe_of_format(text) == recipe
    assert read_recipe(text)["mixed_precision"] == expected


def test_single_precision_has_no_recipe() -> None:
    text = text_of(asked("dense-3d", precision=Precision.FP32))
    assert "    cfg.mixed_precision = None\n" in text
    assert "mixed_precision" not in read_recipe(text)


def test_gradients_reduced_in_bf16_are_said_where_the_format_is() -> None:
    plan = plan_named("dense-3d")
    narrow = stack_named("megatron-core").model_copy(update={"reduce_bytes": 2})
    stack = plan.inputs.stack.model_copy(update={"entry": narrow})
    plan = plan.model_copy(update={"inputs": plan.inputs.model_copy(update={"stack": stack})})
    assert read_recipe(text_of(plan))["mixed_precision"] == {"grad_reduce_in_fp32": False}


@pytest.mark.parametrize(
    ("name", "latent", "blocks"), [("dense-3d", False, False), ("moe", False, True), ("latent-attention", True, True)]
)
def test_layers_of_several_kinds_need_another_model(name: str, latent: bool, blocks: bool) -> None:
    text = text_of(plan_named(name))
    assert ("cfg.model = MLAModelProvider()" in text) is latent
    assert ("partial(get_gpt_decoder_block_spec" in text) is blocks


def test_learned_positions_are_as_many_as_tokens() -> None:
    plan = asked("dense-3d", sequence_length=1024)
    emit(plan, "megatron")
    with pytest.raises(InputError, match="learns a position for each of 1024 tokens of a sequence, not 2048"):
        emit(plan, "megatron-bridge")


def test_ranks_are_numbered_as_the_plan_says_but_under_fsdp() -> None:
    """Its validation refuses the other order beside Megatron's FSDP, which Megatron-LM's doesn't."""
    near = {"axis_order": "tp-cp-pp-dp"}
    assert read_recipe(text_of(laid_out("dense-3d", **near)))["dist"] == {"use_tp_pp_dp_mapping": True}
    emit(laid_out("pipeline-fsdp", **near), "megatron")
    with pytest.raises(InputError, match=r"layout\.axis_order: Megatron-Bridge numbers ranks"):
        emit(laid_out("pipeline-fsdp", **near), "megatron-bridge")


def test_what_megatron_cannot_run_it_cannot() -> None:
    with pytest.raises(InputError, match="Megatron-Bridge has no zb-h1 schedule"):
        emit(laid_out("dense-3d", schedule="zb-h1"), "megatron-bridge")
    emission = emit(laid_out("dense-3d", schedule="zb-h1"), "megatron-bridge", relax=True)
    assert emission.relaxed == ("schedule: zb-h1 -> 1f1b",)
    assert emission.plan == plan_named("dense-3d")
