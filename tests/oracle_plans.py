"""Plans whose memory PyTorch's tracker is asked about: a small model of Llama's kind, and one of the catalog's."""

from typing import Any

from meshwright.catalog.lookup import find_model
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner import Plan, inputs_of
from meshwright.planner.given_layout import plan_of_layout

# The shapes of TinyLlama-1.1B (its config.json), which has no tied embeddings, with 12 of its 22 layers.
SMALL = find_model("llama-2-7b").model_copy(
    update={
        "name": "tinyllama",
        "layers": 12,
        "hidden": 2048,
        "heads": 32,
        "kv_heads": 4,
        "head_dim": 64,
        "ffn_hidden": 5632,
    }
)
FULL, TENSOR = {"recompute": Recompute.FULL}, {"tensor_parallel": 2, "sequence_parallel": True}
SHARDED = {"data_parallel": 8, "zero_shard": 8}
PIPELINE = {"data_parallel": 2, "pipeline_parallel": 2, "zero_stage": 1, "zero_shard": 2}

# By name: fields of the layout, sequences of a step.
LAYOUTS: dict[str, tuple[dict[str, Any], int]] = {
    "zero 3": (SHARDED | {"zero_stage": 3}, 16),
    "zero 3, one micro-batch": (SHARDED | {"zero_stage": 3}, 8),
    "zero 3, recomputed": (SHARDED | FULL | {"zero_stage": 3}, 16),
    "zero 2": (SHARDED | {"zero_stage": 2}, 16),
    "zero 1, half recomputed": (SHARDED | FULL | {"zero_stage": 1, "recompute_layers": 6, "micro_batch": 2}, 32),
    "hybrid": (FULL | {"data_parallel": 16, "zero_stage": 3, "zero_shard": 8, "micro_batch": 2}, 64),
    "tensor": ({"tensor_parallel": 2, "data_parallel": 4, "zero_stage": 3, "zero_shard": 4}, 8),
    "sequence": (TENSOR | {"tensor_parallel": 4, "data_parallel": 2, "zero_stage": 3, "zero_shard": 2}, 4),
    "sequence, recomputed": (TENSOR | FULL | {"data_parallel": 4, "zero_stage": 2, "zero_shard": 4}, 8),
    "1f1b": (PIPELINE, 16),
    "1f1b, uneven and recomputed": (PIPELINE | FULL | {"split": (7, 5)}, 16),
    "gpipe": (PIPELINE | FULL | {"schedule": Schedule.GPIPE}, 8),
    "interleaved": (PIPELINE | {"virtual_pipeline": 2, "schedule": Schedule.INTERLEAVED, "split": (3, 4, 3, 2)}, 16),
    "sequence and 1f1b": (PIPELINE | TENSOR | FULL, 16),
}


def small_plan(fields: dict[str, Any], *, global_batch: int, sequence_length: int = 2048, **asked: Any) -> Plan:  # noqa: ANN401
    """Give the plan of a layout of the small model on H100s under FSDP2."""
    return fsdp2_plan(SMALL, fields, global_batch=global_batch, sequence_length=sequence_length, **asked)


def fsdp2_plan(model: Any, fields: dict[str, Any], *, global_batch: int, sequence_length: int, **asked: Any) -> Plan:  # noqa: ANN401
    """Give the plan of a layout of a model on H100s, under FSDP2 in bf16 unless something else is asked."""
    layout = Layout(**fields)
    inputs = inputs_of(
        model,
        f"dgx-h100:{layout.world_size}",
        global_batch=global_batch,
        sequence_length=sequence_length,
        objective="time",
        top=0,
        memory_headroom=0.0,
        **{"precision": "bf16", "stack": "fsdp2"} | asked,
    )
    return plan_of_layout(inputs, layout)
