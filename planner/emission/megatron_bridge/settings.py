"""What Megatron-Bridge is told of a plan, by section of its ConfigContainer.

What its plain GPT recipe has on where Megatron-LM has it off, or the other way round, is said in any case: its
optimizer is the distributed one, its precision sets in which format gradients are reduced, and its fusions are off.
"""

from typing import Any

from meshwright.catalog.precision import Precision
from meshwright.catalog.stack_entry import LossKernels, StackEntry
from meshwright.costmodels.layout import Layout
from meshwright.costmodels.transformer import Experts, Transformer, transformer_of
from meshwright.planner.emission.megatron.layout_arguments import layout_arguments
from meshwright.planner.emission.megatron.model_arguments import model_arguments
from meshwright.planner.emission.megatron_bridge.fields import Fields, fields_of
from meshwright.planner.plan_schema import Plan

Section = dict[str, Any]
# Names of its recipes for formats (megatron/bridge/training/mixed_precision.py); None trains in fp32.
RECIPES: dict[Precision, str | None] = {
    Precision.FP32: None,
    Precision.BF16: "bf16_mixed",
    Precision.FP16: "fp16_mixed",
    Precision.FP8: "bf16_with_fp8_delayed_scaling_mixed",
    Precision.MXFP8: "bf16_with_mxfp8_mixed",
    Precision.NVFP4: "bf16_with_nvfp4_mixed",
}


def settings(plan: Plan) -> Fields:
    """Give the fields of each section for a plan without obstacles, but for precision and communication."""
    layout, job = plan.layout.layout(), plan.inputs.job
    said = fields_of({**model_arguments(plan.inputs), **layout_arguments(plan)})
    sharded = layout.zero_stage > 0
    return {
        "model": said["model"] | _model(plan, layout),
        "train": {"micro_batch_size": layout.micro_batch, "global_batch_size": job.global_batch},
        "dataset": said["dataset"],
        "tokenizer": {"tokenizer_type": "NullTokenizer", **said["tokenizer"], "use_tokenizer_vocab_size": True},
        "ddp": {"use_distributed_optimizer": sharded, **said.get("ddp", {})},
        "optimizer": {"use_distributed_optimizer": sharded},
        **{name: said[name] for name in ("dist", "checkpoint") if name in said},
    }


def _model(plan: Plan, layout: Layout) -> Section:
    entry, stack = plan.inputs.model.entry, plan.inputs.stack.entry
    gated: Section = {"gated_linear_unit": True, "activation_func": "silu"}
    chunks = layout.virtual_pipeline
    return {
        **(gated if entry.gated_mlp else {}),
        **_patterns(transformer_of(entry)),
        **({"virtual_pipeline_model_parallel_size": chunks} if chunks > 1 else {}),
        # Gated activations are fused with a bias or without, others only with one.
        "bias_activation_fusion": stack.fused_activation and (entry.gated_mlp or entry.output_bias),
        "bias_dropout_fusion": stack.fused_residual,
        "apply_rope_fusion": stack.fused_rotary,
        "cross_entropy_loss_fusion": stack.loss is LossKernels.FUSED,
        **({"deterministic_mode": True} if stack.deterministic else {}),
    }


def _patterns(model: Transformer) -> Section:
    """Give which layers are mixtures and which attend within a window, where not all are alike."""
    found: Section = {}
    mixtures = [isinstance(layer.mlp, Experts) for layer in model.layers]
    if any(mixtures) and not all(mixtures):
        found["moe_layer_freq"] = [int(mixture) for mixture in mixtures]
    windows = [layer.attention.window for layer in model.layers]
    widths = [window for window in windows if window is not None]
    if widths:
        # The window counts the tokens before a query, ours the query too.
        found["window_size"] = (widths[0] - 1, 0)
        found["window_attn_skip_freq"] = [int(window is not None) for window in windows]
    return found


def precision(plan: Plan) -> Section:
    """Give what is set over the recipe of the format: how gradients are reduced, and parameters gathered."""
    kind, stack = plan.inputs.job.precision, plan.inputs.stack.entry
    wide = kind is Precision.FP16 or stack.reduce_bytes == 4
    gathered: Section = {}
    if kind in (Precision.FP8, Precision.MXFP8):
        gathered = {"fp8_param_gather": stack.narrow_parameters}
    if kind is Precision.MXFP8:
        gathered["reuse_grad_buf_for_mxfp8_param_ag"] = stack.narrow_parameters
    if kind is Precision.NVFP4:
        gathered = {"fp4_param_gather": stack.narrow_parameters}
    return {"grad_reduce_in_fp32": wide, **gathered}


def overlap(plan: Plan) -> Section:
    """Give the arguments of CommOverlapConfig: what is sent beside compute."""
    layout, stack = plan.layout.layout(), plan.inputs.stack.entry
    reduces = layout.data_parallel * layout.context_parallel > 1 and stack.overlap_gradients
    rounds = layout.virtual_pipeline > 1 and stack.overlap_pipeline
    return {
        "tp_comm_overlap": _overlaps_tensor(layout, stack),
        "overlap_p2p_comm": rounds,
        "batch_p2p_comm": not rounds,
        "overlap_grad_reduce": reduces,
        "overlap_param_gather": reduces and layout.zero_stage > 0 and stack.overlap_parameters,
    }


def _overlaps_tensor(layout: Layout, stack: StackEntry) -> bool:
    return layout.sequence_parallel and layout.tensor_parallel > 1 and stack.overlap_tensor
