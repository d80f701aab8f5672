"""What DeepSpeed is told: the keys of its configuration, of which it ignores those that it doesn't know."""

from typing import Any

from meshwright.catalog.precision import Precision
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.emission.launch.told import micro_batches
from meshwright.planner.plan_schema import Plan

Settings = dict[str, Any]
# By bytes of an element, what it is called; two bytes are as the parameters are.
HALVES = {Precision.BF16: "bf16", Precision.FP16: "fp16"}
# The factor that fp16 starts to scale the loss by, 2^16, is DeepSpeed's own.
SWITCHES: dict[Precision, Settings] = {
    Precision.BF16: {"bf16": {"enabled": True}},
    Precision.FP16: {"fp16": {"enabled": True, "loss_scale": 0}},
}


def settings(plan: Plan) -> Settings:
    """Give the configuration for a plan without obstacles."""
    layout, job = plan.layout.layout(), plan.inputs.job
    document = {
        **_batch(plan, layout),
        **SWITCHES.get(job.precision, {}),
        **_reductions(plan, layout),
        "zero_optimization": zero(plan, layout),
        **_axes(layout),
        **_recompute(plan, layout),
    }
    return document if plan.offload is None else merged(document, plan.offload.settings)


def merged(document: Settings, more: Settings) -> Settings:
    """Give a document with the keys of another one in place of its own, within common sections too."""
    both = {
        name: merged(document[name], value)
        if isinstance(value, dict) and isinstance(document.get(name), dict)
        else value
        for name, value in more.items()
    }
    return document | both


def _batch(plan: Plan, layout: Layout) -> Settings:
    """Give the batch by the micro-batch and their number.

    Their product with the replicas, train_batch_size, is checked before tensor groups are made, when tensor ranks
    still count as replicas: it is left out where there are some.
    """
    whole = {} if layout.tensor_parallel > 1 else {"train_batch_size": plan.inputs.job.global_batch}
    return whole | {
        "train_micro_batch_size_per_gpu": layout.micro_batch,
        "gradient_accumulation_steps": micro_batches(plan),
    }


def _reductions(plan: Plan, layout: Layout) -> Settings:
    """Give the formats of gradients: on the wire, and where ZeRO accumulates them (without it, as the parameters)."""
    stack, half = plan.inputs.stack.entry, HALVES.get(plan.inputs.job.precision, "fp32")
    name = "communication_data_type" if layout.context_parallel == 1 else "seq_parallel_communication_data_type"
    wire = {name: half if stack.reduce_bytes == 2 else "fp32"}
    accumulated_bytes = (
        stack.fp16_gradient_bytes if plan.inputs.job.precision is Precision.FP16 else stack.gradient_bytes
    )
    kept = {"data_types": {"grad_accum_dtype": half if accumulated_bytes == 2 else "fp32"}}
    return wire | (kept if layout.zero_stage else {})


def zero(plan: Plan, layout: Layout) -> Settings:
    """Give what is sharded, and in which format it is gathered and reduced."""
    if layout.zero_stage == 0:
        return {"stage": 0}
    stack = plan.inputs.stack.entry
    shared: Settings = {
        "stage": layout.zero_stage,
        "overlap_comm": stack.overlap_gradients,
        "contiguous_gradients": True,
    }
    if layout.zero_stage < 3:
        return shared
    secondary = layout.shards["backward_shard"]
    return {
        **shared,
        **({"zero_hpz_partition_size": secondary} if secondary != layout.zero_shard else {}),
        **({"zero_quantized_weights": True} if stack.gather_bytes == 1 else {}),
        **({"zero_quantized_gradients": True} if stack.quantised_reduction else {}),
    }


def _axes(layout: Layout) -> Settings:
    tensor: Settings = {"tensor_parallel": {"autotp_size": layout.tensor_parallel}}
    # Both sizes together make deepspeed.initialize cut its mesh.
    context: Settings = {
        "sequence_parallel_size": layout.context_parallel,
        "data_parallel_size": layout.data_parallel,
    }
    experts: Settings = {"expert_parallel": {"enabled": True, "autoep_size": layout.expert_parallel}}
    return {
        **(tensor if layout.tensor_parallel > 1 else {}),
        **(context if layout.context_parallel > 1 else {}),
        **(experts if layout.expert_parallel > 1 else {}),
    }


def _recompute(plan: Plan, layout: Layout) -> Settings:
    """Give what deepspeed.checkpointing does, where a model calls it."""
    if layout.recompute is Recompute.NONE:
        return {}
    return {
        "activation_checkpointing": {
            "partition_activations": False,
            "cpu_checkpointing": False,
            "contiguous_memory_optimization": False,
            "number_checkpoints": plan.inputs.model.entry.layers,
            "synchronize_checkpoint_boundary": False,
            "profile": False,
        }
    }
