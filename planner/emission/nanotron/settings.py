"""What Nanotron is told of a plan: the sections of its configuration, which takes no key that it doesn't know."""

from typing import Any

from meshwright.catalog.model_entry import ModelEntry
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.costmodels.transformer import Experts, transformer_of
from meshwright.planner.emission.launch.nodes import nodes_of
from meshwright.planner.emission.launch.told import micro_batches
from meshwright.planner.emission.nanotron.obstacles import ENGINES
from meshwright.planner.plan_schema import Inputs, Plan

Settings = dict[str, Any]
# What a run needs and a plan doesn't say; synthetic tokens, and the usual constants of such training.
TRAIN_STEPS = 100
SEED = 42
LEARNING_RATE = 3e-4


def settings(plan: Plan) -> Settings:
    """Give the configuration for a plan without obstacles."""
    layout = plan.layout.layout()
    return {
        "general": {"project": nodes_of(plan).job, "seed": SEED},
        "parallelism": _parallelism(plan, layout),
        "tokens": _tokens(plan, layout),
        "model": _model(plan.inputs),
        "optimizer": _optimizer(plan, layout),
        "data_stages": [
            {
                "name": "synthetic",
                "start_training_step": 1,
                "data": {"dataset": None, "seed": SEED, "num_loading_workers": 1},
            }
        ],
        "checkpoints": {"checkpoints_path": "checkpoints", "checkpoint_interval": TRAIN_STEPS},
        "logging": {"iteration_step_info_interval": 1},
    }


def _parallelism(plan: Plan, layout: Layout) -> Settings:
    shared = layout.sequence_parallel and layout.tensor_parallel > 1
    return {
        "dp": layout.data_parallel,
        "pp": layout.pipeline_parallel,
        "tp": layout.tensor_parallel,
        "context_parallel_size": 1,
        "expert_parallel_size": 1,
        "pp_engine": ENGINES[layout.schedule] if layout.pipeline_parallel > 1 else "1f1b",
        "tp_mode": "REDUCE_SCATTER" if shared else "ALL_REDUCE",
        "tp_linear_async_communication": shared and plan.inputs.stack.entry.overlap_tensor,
        "recompute_layer": layout.recompute is Recompute.FULL,
    }


def _tokens(plan: Plan, layout: Layout) -> Settings:
    return {
        "sequence_length": plan.inputs.job.sequence_length,
        "micro_batch_size": layout.micro_batch,
        "batch_accumulation_per_replica": micro_batches(plan),
        "train_steps": TRAIN_STEPS,
    }


def _model(inputs: Inputs) -> Settings:
    entry, stack = inputs.model.entry, inputs.stack.entry
    return {
        "dtype": "bfloat16",
        "init_method": {"std": 0.02},
        "model_config": {
            "is_qwen2_config": True,
            "num_hidden_layers": entry.layers,
            "hidden_size": entry.hidden,
            "intermediate_size": entry.ffn_hidden,
            "num_attention_heads": entry.heads,
            "num_key_value_heads": entry.kv_heads,
            "vocab_size": entry.vocab,
            "max_position_embeddings": inputs.job.sequence_length,
            "rope_theta": float(entry.rotary_base),
            "tie_word_embeddings": entry.tied_embeddings,
            "attention_bias": entry.qkv_bias,
            "hidden_act": "silu",
            "sliding_window_size": entry.window,
            "log_attn_probs": False,
            "_fused_rms_norm": stack.fused_norm,
            "_fused_rotary_emb": stack.fused_rotary,
            "moe_config": _experts(entry),
        },
    }


def _experts(entry: ModelEntry) -> Settings | None:
    experts = entry.experts
    if experts is None:
        return None
    mixtures = [isinstance(layer.mlp, Experts) for layer in transformer_of(entry).layers]
    shared: Settings = {"shared_expert_intermediate_size": experts.shared_ffn_hidden}
    return {
        "num_experts": experts.experts,
        "top_k": experts.top_k,
        "moe_intermediate_size": experts.ffn_hidden,
        "layers": [number for number, mixture in enumerate(mixtures) if mixture],
        "enable_shared_expert": experts.shared_ffn_hidden > 0,
        **(shared if experts.shared_ffn_hidden else {}),
    }


def _optimizer(plan: Plan, layout: Layout) -> Settings:
    return {
        "zero_stage": layout.zero_stage,
        "accumulate_grad_in_fp32": plan.inputs.stack.entry.gradient_bytes == 4,
        "clip_grad": 1.0,
        "weight_decay": 0.1,
        "optimizer_factory": {
            "name": "adamW",
            "adam_beta1": 0.9,
            "adam_beta2": 0.95,
            "adam_eps": 1e-8,
            "torch_adam_is_fused": True,
        },
        "learning_rate_scheduler": {
            "learning_rate": LEARNING_RATE,
            "lr_warmup_style": "linear",
            "lr_decay_style": "cosine",
        },
    }
