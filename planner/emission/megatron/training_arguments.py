"""What Megatron-LM is told of the step: batch, precision, and what runs beside what."""

from meshwright.catalog.precision import Precision
from meshwright.catalog.stack_entry import LossKernels, StackEntry
from meshwright.planner.emission.megatron.arguments import Arguments, Value
from meshwright.planner.plan_schema import Plan

PRECISIONS: dict[Precision, Arguments] = {
    Precision.FP32: {},
    Precision.BF16: {"bf16": True},
    Precision.FP16: {"fp16": True},
    Precision.FP8: {"bf16": True, "fp8-format": "hybrid", "fp8-recipe": "delayed"},
    Precision.MXFP8: {"bf16": True, "fp8-format": "e4m3", "fp8-recipe": "mxfp8"},
    Precision.NVFP4: {"bf16": True, "fp4-format": "e2m1", "fp4-recipe": "nvfp4"},
}


def training_arguments(plan: Plan) -> Arguments:
    """Give the arguments for the step."""
    job, stack = plan.inputs.job, plan.inputs.stack.entry
    return {
        "micro-batch-size": plan.layout.micro_batch,
        "global-batch-size": job.global_batch,
        **PRECISIONS[job.precision],
        **_overlap(plan, stack),
        **_fusions(stack),
    }


def _overlap(plan: Plan, stack: StackEntry) -> dict[str, Value]:
    layout = plan.layout
    sharded, several = layout.zero_stage > 0, layout.data_parallel * layout.context_parallel > 1
    reduces = several and stack.overlap_gradients
    switches = {
        "overlap-grad-reduce": reduces,
        "overlap-param-gather": reduces and sharded and stack.overlap_parameters,
        "tp-comm-overlap": layout.sequence_parallel and layout.tensor_parallel > 1 and stack.overlap_tensor,
        "no-overlap-p2p-communication": layout.virtual_pipeline > 1 and not stack.overlap_pipeline,
        "grad-reduce-in-bf16": stack.reduce_bytes == 2 and job_is_bf16(plan),
    }
    return {name: True for name, wanted in switches.items() if wanted}


def job_is_bf16(plan: Plan) -> bool:
    """Whether parameters are in bfloat16, whatever the products are in."""
    return plan.inputs.job.precision not in (Precision.FP32, Precision.FP16)


def _fusions(stack: StackEntry) -> dict[str, Value]:
    switches = {
        "no-rope-fusion": not stack.fused_rotary,
        "no-bias-swiglu-fusion": not stack.fused_activation,
        "no-bias-dropout-fusion": not stack.fused_residual,
        "cross-entropy-loss-fusion": stack.loss is LossKernels.FUSED,
        "deterministic-mode": stack.deterministic,
    }
    return {name: True for name, wanted in switches.items() if wanted}
