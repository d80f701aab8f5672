"""The job that Megatron-LM's printed arguments describe, as the parts of a case.

They tell the model, the layout and the batch; what they don't tell is the device and how many of them a node has.

Names and meanings: NVIDIA/Megatron-LM, megatron/training/arguments.py; Ascend/MindSpeed-LLM, mindspeed_llm/training.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.precision import Precision
from meshwright.planner.calibration.megatron_arguments import Arguments

NEEDED = ("num_layers", "hidden_size", "num_attention_heads", "seq_length", "global_batch_size", "world_size")


def job_of(given: Arguments) -> dict[str, Any]:
    """Give the parts of a case that the arguments tell: framework, precision, model, layout, batch, devices.

    Raises InputError where one of NEEDED is missing, or a value is no number where there should be one.
    """
    for name in NEEDED:
        given.needed(name)
    return {
        "framework": framework_of(given),
        "precision": precision_of(given),
        "model": model_of(given),
        "layout": layout_of(given),
        "batch": _without_nothing(
            {"global_batch": given.whole("global_batch_size"), "micro_batch": given.whole("micro_batch_size")}
        ),
        "devices": given.needed("world_size"),
        "unknown": list(_unmodelled(given)),
    }


def framework_of(given: Arguments) -> str:
    """Tell the framework by the arguments that only it has; the releases of Megatron-LM by what they fuse."""
    if given.on("deepspeed"):
        return "Megatron-DeepSpeed"
    if given.has("reuse_fp32_param", "swap_attention", "context_parallel_algo", "use_fused_rmsnorm"):
        return "MindSpeed-LLM"
    if not given.has("transformer_impl"):
        return "Megatron-LM (2021)"
    fused = given.on("gradient_accumulation_fusion") and given.on("cross_entropy_loss_fusion")
    return "Megatron-Core" if fused else "Megatron-LM (main)"


def precision_of(given: Arguments) -> Precision:
    """Give the format of the matrix products."""
    if given.text("fp4", "fp4_format") not in {None, "False"}:
        return Precision.NVFP4
    if given.text("fp8", "fp8_format") not in {None, "False"}:
        return Precision.MXFP8 if given.text("fp8_recipe") == "mxfp8" else Precision.FP8
    if given.on("bf16"):
        return Precision.BF16
    return Precision.FP16 if given.on("fp16") else Precision.FP32


def model_of(given: Arguments) -> dict[str, Any]:
    """Give the model of a case."""
    heads = given.needed("num_attention_heads")
    latent = given.on("multi_latent_attention", "multi_head_latent_attention")
    return _without_nothing(
        {
            "layers": given.needed("num_layers"),
            "hidden": given.needed("hidden_size"),
            "heads": heads,
            "kv_heads": given.whole("num_query_groups") if given.on("group_query_attention") else heads,
            "head_dim": None if latent else given.whole("kv_channels"),
            "ffn_hidden": given.whole("ffn_hidden_size") or 4 * given.needed("hidden_size"),
            "gated_mlp": given.on("swiglu", "geglu"),
            "vocab": given.whole("padded_vocab_size", "vocab_size"),
            "tied_embeddings": not given.on("untie_embeddings_and_output_weights"),
            "sequence_length": given.needed("seq_length"),
            "attention": _windows(given),
            "moe": _experts(given),
            "mla": _latent(given) if latent else None,
            "mtp_layers": given.whole("mtp_num_layers"),
        }
    )


def _windows(given: Arguments) -> str | None:
    """Say which layers look back through a window: a window of "(127, 0)" is the token itself and 127 before."""
    window = re.fullmatch(r"[\[(]\s*([0-9]{1,8})\s*,\s*0\s*[\])]", given.text("window_size") or "")
    if window is None or given.text("window_attn_skip_freq") != "2":
        return None
    return f"alternating full / sliding window {int(window[1]) + 1}"


def _experts(given: Arguments) -> dict[str, Any] | None:
    if given.text("num_experts") == "[1]":  # Megatron-DeepSpeed's way to say none
        return None
    experts = given.whole("num_experts", "num_moe_experts")
    if experts is None or experts < 2:
        return None
    width = given.whole("moe_ffn_hidden_size", "moe_intermediate_size") or given.whole("ffn_hidden_size")
    return _without_nothing(
        {
            "experts": experts,
            "top_k": given.whole("moe_router_topk") or 1,
            "expert_ffn_hidden": width or 4 * given.needed("hidden_size"),
            "shared_expert_ffn": given.whole("moe_shared_expert_intermediate_size"),
            "n_shared_experts": given.whole("n_shared_experts"),
            "dense_first": given.whole("first_k_dense_replace"),
            "moe_layer_freq": _frequency(given.text("moe_layer_freq") or "1"),
            **_groups(given),
            "capacity_factor": given.number("moe_expert_capacity_factor"),
            "padded_to_capacity": given.on("moe_pad_expert_input_to_capacity"),
            "dispatcher": given.text("moe_token_dispatcher_type"),
            "grouped_gemm": given.on("moe_grouped_gemm"),
        }
    )


def _groups(given: Arguments) -> dict[str, int | None]:
    """Give the groups that a token's experts are of; without a number of them for a token there is no limit."""
    drawn = given.whole("moe_router_group_topk")
    return {"n_group": given.whole("moe_router_num_groups"), "topk_group": drawn} if drawn else {}


def _frequency(text: str) -> int | str:
    """Write a printed list of flags ("[0, 0, 1, 1]") as a pattern ("[0]*2+[1]*2"); a count stays one."""
    if re.fullmatch(r"-?[0-9]{1,6}", text):
        return int(text)
    flags = re.findall(r"[01]", text) if re.fullmatch(r"\[[01](?:, ?[01])*\]", text) else []
    return "+".join(f"[{flag}]*{len(list(run))}" for flag, run in groupby(flags)) or text


def _latent(given: Arguments) -> dict[str, Any]:
    return {
        "q_lora_rank": given.whole("q_lora_rank"),
        "kv_lora_rank": given.needed("kv_lora_rank"),
        "qk_nope_head_dim": given.needed("qk_head_dim", "qk_nope_head_dim"),
        "qk_rope_head_dim": given.needed("qk_pos_emb_head_dim", "qk_rope_head_dim"),
        "v_head_dim": given.needed("v_head_dim"),
    }


def layout_of(given: Arguments) -> dict[str, Any]:
    """Give the layout of a case, with the switches that change a prediction."""
    dropout = max(given.number("hidden_dropout") or 0.0, given.number("attention_dropout") or 0.0)
    narrow = precision_of(given) is not Precision.FP32
    accumulates = given.switch("accumulate_allreduce_grads_in_fp32") if narrow else None
    fused_accumulation = given.switch("gradient_accumulation_fusion")
    return _without_nothing(
        {
            "tensor_parallel": given.whole("tensor_model_parallel_size"),
            "sequence_parallel": given.switch("sequence_parallel"),
            "context_parallel": given.whole("context_parallel_size"),
            "context_parallel_method": _context_method(given),
            "pipeline_parallel": given.whole("pipeline_model_parallel_size"),
            "virtual_pipeline": given.whole("virtual_pipeline_model_parallel_size"),
            "data_parallel": given.whole("data_parallel_size"),
            "axis_order": str(AxisOrder.DATA_OUTERMOST) if given.on("use_tp_pp_dp_mapping") else None,
            "expert_parallel": given.whole("expert_model_parallel_size"),
            "expert_tensor_parallel": given.whole("expert_tensor_parallel_size"),
            "zero_stage": zero_stage_of(given),
            "zero_shard_devices": _zero_shard(given),
            **_recompute(given),
            "flash_attention": _flash(given),
            "overlap_grad_reduce": given.switch("overlap_grad_reduce"),
            "overlap_param_gather": given.switch("overlap_param_gather"),
            "tp_comm_overlap": given.switch("tp_comm_overlap"),
            "cuda_graph": given.on("enable_cuda_graph", "external_cuda_graph") or None,
            "grad_accumulation": {True: "fp32", False: "fp16/bf16", None: None}[accumulates],
            "dropout": dropout,
            "reuse_fp32_param": given.switch("reuse_fp32_param"),
            "no_accumulation_fusion": True if fused_accumulation is False else None,
            "deterministic": given.on("deterministic_mode") or None,
            "transformer_impl": given.text("transformer_impl"),
            "cross_entropy_fusion": given.on("cross_entropy_loss_fusion") or None,
            "optimizer": given.text("optimizer"),
        }
    )


def _context_method(given: Arguments) -> str | None:
    if (given.whole("context_parallel_size") or 1) == 1:
        return None
    kind = given.text("context_parallel_algo", "cp_comm_type")
    return kind.strip("[]'\" ") or None if kind else None


def zero_stage_of(given: Arguments) -> int:
    """Give the ZeRO stage: of DeepSpeed as printed, of the distributed optimizer 1, of FSDP what it shards."""
    if given.on("deepspeed"):
        return given.whole("zero_stage") or 0
    if given.on("use_torch_fsdp2"):
        return 3
    if given.on("use_megatron_fsdp", "use_custom_fsdp"):
        stages = {"optim": 1, "optim_grads": 2, "optim_grads_params": 3}
        return stages.get(given.text("data_parallel_sharding_strategy") or "", 0)
    return 1 if given.on("use_distributed_optimizer") else 0


def _zero_shard(given: Arguments) -> int | None:
    """Give the devices over which one of several distributed optimizers is sharded."""
    instances = given.whole("num_distributed_optimizer_instances") or 1
    replicas = (given.whole("data_parallel_size") or 1) * (given.whole("context_parallel_size") or 1)
    return replicas // instances if 1 < instances <= replicas else None


def _recompute(given: Arguments) -> dict[str, str]:
    granularity = given.text("recompute_granularity")
    if granularity == "selective":
        modules = re.findall(r"[a-z_]+", given.text("recompute_modules") or "core_attn")
        return {
            "recompute": "selective",
            "recompute_detail": f"selective ({', '.join(modules)})".replace("core_attn", "attention core"),
        }
    if granularity == "full" or given.on("checkpoint_activations"):
        method = given.text("recompute_method", "activations_checkpoint_method") or "uniform"
        layers = given.whole("recompute_num_layers", "activations_checkpoint_num_layers") or 1
        return {"recompute": "full", "recompute_detail": f"full (method {method}, num-layers {layers})"}
    return {"recompute": "none"}


def _flash(given: Arguments) -> bool | None:
    """Tell whether attention is fused: by its backend, of older releases by their switch; None: as the stack does."""
    backend = given.text("attention_backend") or ""
    if "unfused" in backend or "local" in backend:
        return False
    if "flash" in backend or "fused" in backend:
        return True
    switches = ("use_flash_attn", "use_flash_attn_v2", "use_flash_attn_v1")
    if given.on(*switches):
        return True
    return False if given.has(*switches) and given.text("transformer_impl") in {None, "local"} else None


def _unmodelled(given: Arguments) -> Iterator[str]:
    """Say what the arguments tell and a case can't: what was measured did more or less there than is predicted."""
    if given.has("window_size") and _windows(given) is None:
        yield "which layers look back through a window"
    if given.has(
        "decoder_first_pipeline_num_layers", "decoder_last_pipeline_num_layers", "pipeline_model_parallel_layout"
    ):
        yield "the uneven split of layers over pipeline stages"
    if given.text("recompute_method") == "block" and given.text("recompute_granularity") == "full":
        yield "the layers that full recomputation leaves out"
    if given.has("optimizer_cpu_offload") and given.on("optimizer_cpu_offload"):
        yield "the optimizer's states in host memory"


def _without_nothing(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
