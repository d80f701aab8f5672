"""Plans to emit: layouts of every kind, given for jobs of the catalog. None is searched for, so they cost nothing."""

from functools import cache
from typing import Any

from meshwright.costmodels.layout import Layout
from meshwright.planner import Plan, inputs_of
from meshwright.planner.given_layout import plan_of_layout
from meshwright.planner.plan_schema import LayoutSection

# By name: model, cluster, sequences and tokens of a step, what differs from Layout's defaults, the stack.
PLANS: dict[str, tuple[str, str, int, int, dict[str, Any], str]] = {
    "dense-3d": (
        "gpt3-175b",
        "selene:1024",
        1536,
        2048,
        {"tensor_parallel": 8, "sequence_parallel": True, "pipeline_parallel": 8, "data_parallel": 16}
        | {"recompute": "selective", "zero_stage": 1, "zero_shard": 16},
        "megatron-core",
    ),
    "interleaved": (
        "megatron-145b",
        "selene:1536",
        2304,
        2048,
        {"tensor_parallel": 8, "sequence_parallel": True, "pipeline_parallel": 8, "data_parallel": 24}
        | {"virtual_pipeline": 2, "schedule": "interleaved", "zero_stage": 1, "zero_shard": 24},
        "megatron-core",
    ),
    "gqa-tensor": (
        "llama-3.1-70b",
        "dgx-h100:64",
        256,
        8192,
        {"tensor_parallel": 8, "sequence_parallel": True, "data_parallel": 8, "zero_stage": 1, "zero_shard": 8}
        | {"recompute": "full", "recompute_layers": 70},
        "megatron-core",
    ),
    "uneven": (
        "llama-3.1-405b",
        "dgx-h100:1024",
        512,
        8192,
        {"tensor_parallel": 8, "sequence_parallel": True, "pipeline_parallel": 16, "data_parallel": 8}
        | {"split": (7, *(8,) * 14, 7), "zero_stage": 1, "zero_shard": 8, "recompute": "full"},
        "megatron-core",
    ),
    "long-context": (
        "llama-3.1-70b",
        "dgx-h100:256",
        32,
        131072,
        {"tensor_parallel": 8, "sequence_parallel": True, "context_parallel": 8, "data_parallel": 4}
        | {"context_method": "all-gather", "zero_stage": 1, "zero_shard": 32, "recompute": "full"},
        "megatron-core",
    ),
    "hybrid-context": (
        "llama-3.1-8b",
        "dgx-h100:32",
        16,
        131072,
        {"context_parallel": 16, "context_method": "hybrid", "ulysses_parallel": 8, "data_parallel": 2}
        | {"zero_stage": 1, "zero_shard": 32, "recompute": "full"},
        "megatron-core",
    ),
    "fsdp": (
        "llama-3.1-8b",
        "dgx-h100:8",
        64,
        8192,
        {"data_parallel": 8, "zero_stage": 3, "zero_shard": 8, "recompute": "full"},
        "fsdp2",
    ),
    "hsdp": (
        "llama-3.1-8b",
        "dgx-h100:32",
        64,
        8192,
        {"data_parallel": 32, "zero_stage": 3, "zero_shard": 8, "recompute": "full"},
        "fsdp2",
    ),
    "tensor-fsdp": (
        "llama-3.1-70b",
        "dgx-h100:64",
        128,
        8192,
        {"tensor_parallel": 8, "sequence_parallel": True, "data_parallel": 8, "zero_stage": 3, "zero_shard": 8}
        | {"recompute": "full"},
        "fsdp2",
    ),
    "optimizer-instances": (
        "llama-3.1-8b",
        "dgx-h100:64",
        128,
        8192,
        {"tensor_parallel": 2, "sequence_parallel": True, "data_parallel": 32, "zero_stage": 1, "zero_shard": 8}
        | {"recompute": "full"},
        "megatron-core",
    ),
    "moe": (
        "mixtral-8x7b",
        "dgx-h100:64",
        256,
        4096,
        {"tensor_parallel": 2, "sequence_parallel": True, "pipeline_parallel": 4, "data_parallel": 8}
        | {"expert_parallel": 8, "expert_tensor_parallel": 1, "zero_stage": 1, "zero_shard": 8},
        "megatron-core",
    ),
    "moe-4d": (
        "qwen3-235b-a22b",
        "dgx-h100:256",
        1024,
        4096,
        {"tensor_parallel": 4, "sequence_parallel": True, "pipeline_parallel": 8, "data_parallel": 8}
        | {"expert_parallel": 32, "zero_stage": 1, "zero_shard": 8, "recompute": "selective"}
        | {"split": (11, *(12,) * 6, 11)},
        "megatron-core",
    ),
    "latent-attention": (
        "deepseek-v3",
        "dgx-h100:2048",
        15360,
        4096,
        {"pipeline_parallel": 16, "data_parallel": 128, "expert_parallel": 64, "zero_stage": 1, "zero_shard": 128}
        | {"split": (3, *(4,) * 14, 2), "recompute": "full"},
        "megatron-core",
    ),
    "single-device": ("llama-3.1-8b", "dgx-h200:1", 8, 2048, {"recompute": "full"}, "fsdp2"),
    "pipeline-fsdp": (
        "llama-3.1-70b",
        "dgx-h100:64",
        128,
        8192,
        {"tensor_parallel": 4, "sequence_parallel": True, "pipeline_parallel": 4, "data_parallel": 4}
        | {"zero_stage": 2, "zero_shard": 4, "recompute": "full"},
        "fsdp2",
    ),
}


@cache
def plan_named(name: str) -> Plan:
    """Make one of the plans."""
    model, cluster, global_batch, sequence_length, fields, stack = PLANS[name]
    inputs = inputs_of(
        model,
        cluster,
        stack=stack,
        precision="bf16",
        objective="time",
        top=0,
        global_batch=global_batch,
        sequence_length=sequence_length,
        memory_headroom=0.0,
    )
    return plan_of_layout(inputs, layout_of(fields))


def layout_of(fields: dict[str, Any]) -> Layout:
    """Give the layout of some fields, the others as they are by default."""
    return LayoutSection(**{**LayoutSection.of(Layout()).model_dump(), **fields}).layout()
