"""What torchtitan is told of a plan, by section of its Trainer.Config."""

from collections.abc import Mapping
from typing import Any

from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.costmodels.stages import chunk_sizes
from meshwright.planner.plan_schema import Plan

# Names of torch.distributed.pipelining's schedules (get_schedule_class), which the configuration doesn't check.
SCHEDULES: Mapping[Schedule, str] = {
    Schedule.GPIPE: "GPipe",
    Schedule.ONE_F_ONE_B: "1F1B",
    Schedule.INTERLEAVED: "Interleaved1F1B",
    Schedule.ZERO_BUBBLE_V: "ZBVZeroBubble",
    Schedule.DUAL_PIPE_V: "DualPipeV",
}
# What turns products into those of narrow formats, by the class of torchtitan.components.quantization that does: of
# matrices, and of experts. Head and router stay as they are, as in its own configurations.
NARROW: Mapping[Precision, Mapping[str, Mapping[str, Any]]] = {
    Precision.BF16: {},
    Precision.FP8: {"Float8LinearConverter": {"filter_fqns": ["lm_head", "router.gate"]}},
    Precision.MXFP8: {"MXFP8LinearConverter": {"fqns": ["attention", "feed_forward", "shared_experts"]}},
}
NARROW_EXPERTS: Mapping[Precision, Mapping[str, Mapping[str, Any]]] = {
    Precision.BF16: {},
    Precision.FP8: {"Float8GroupedExpertsConverter": {}},
    Precision.MXFP8: {"MXFP8GroupedExpertsConverter": {"pad_multiple": 128}},
}


def converters(plan: Plan) -> dict[str, dict[str, Any]]:
    """Give the converters of a model to the format of the products, and their arguments."""
    precision, mixture = plan.inputs.job.precision, plan.inputs.model.entry.experts is not None
    chosen = {**NARROW[precision], **(NARROW_EXPERTS[precision] if mixture else {})}
    return {name: {**given, "model_compile_enabled": is_compiled(plan)} for name, given in chosen.items()}


def is_compiled(plan: Plan) -> bool:
    """Whether the model is compiled, which is what fuses its norms."""
    return plan.inputs.stack.entry.fused_norm


def parallelism(plan: Plan) -> dict[str, Any]:
    """Give the fields of ParallelismConfig. FSDP shards over data_parallel_shard x context ranks."""
    layout = plan.layout.layout()
    sharded = layout.zero_shard // layout.context_parallel if layout.zero_stage else 1
    return {
        "data_parallel_replicate_degree": layout.data_parallel // sharded,
        "data_parallel_shard_degree": sharded,
        "fsdp_reshard_after_forward": "always" if layout.zero_stage == 3 else "never",
        "tensor_parallel_degree": layout.tensor_parallel,
        "enable_sequence_parallel": layout.sequence_parallel or layout.tensor_parallel == 1,
        "context_parallel_degree": layout.context_parallel,
        "expert_parallel_degree": layout.expert_parallel,
        "pipeline_parallel_degree": layout.pipeline_parallel,
        **(_pipeline(plan, layout) if layout.pipeline_parallel > 1 else {}),
    }


def _pipeline(plan: Plan, layout: Layout) -> dict[str, Any]:
    return {
        "pipeline_parallel_schedule": SCHEDULES[layout.schedule],
        "pipeline_parallel_microbatch_size": layout.micro_batch,
        "module_fqns_per_model_part": module_names(plan),
    }


def module_names(plan: Plan) -> list[list[str]]:
    """Give the modules of each chunk, in model order."""
    layout, layers = plan.layout.layout(), plan.inputs.model.entry.layers
    sizes = layout.split or chunk_sizes(layers, layout.pipeline_parallel * layout.virtual_pipeline)
    firsts = [sum(sizes[:chunk]) for chunk in range(len(sizes))]
    names = [[f"layers.{first + layer}" for layer in range(size)] for first, size in zip(firsts, sizes, strict=True)]
    names[0].insert(0, "tok_embeddings")
    names[-1] += ["norm", "lm_head"]
    return names


def training(plan: Plan) -> dict[str, Any]:
    """Give the fields of TrainingConfig.

    Under a pipeline a replica's batch of a step is cut into micro-batches; else it is the micro-batch, and the rest of
    the global batch is accumulated. CUDA graphs can't be had with pipelines, nor with dispatches that the host awaits.
    """
    layout, job = plan.layout.layout(), plan.inputs.job
    piped, routed = layout.pipeline_parallel > 1, layout.expert_parallel > 1
    return {
        "local_batch_size": job.global_batch // layout.data_parallel if piped else layout.micro_batch,
        "global_batch_size": job.global_batch,
        "seq_len": job.sequence_length,
        "disable_cuda_graphs": piped or routed,
    }


def recomputed_layers(plan: Plan) -> tuple[int, ...] | None:
    """Give the layers that are recomputed; None where all are."""
    layout = plan.layout.layout()
    if layout.recompute is Recompute.NONE:
        return ()
    if not layout.recompute_split and layout.recompute_layers is None:
        return None
    layers = plan.inputs.model.entry.layers
    sizes = layout.split or chunk_sizes(layers, layout.pipeline_parallel * layout.virtual_pipeline)
    counts = layout.recompute_split or (layout.recompute_layers or 0,) * len(sizes)
    firsts = [sum(sizes[:chunk]) for chunk in range(len(sizes))]
    chosen = tuple(
        layer
        for first, size, count in zip(firsts, sizes, counts, strict=True)
        for layer in range(first, first + min(size, count))
    )
    return None if len(chosen) == layers else chosen
