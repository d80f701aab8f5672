"""The software of a case: the catalog's stack of its framework, with the case's switches laid over it."""

import re
from collections.abc import Iterator, Sequence

from meshwright.catalog.stack_entry import LossKernels, StackEntry
from meshwright.planner.accuracy.case import Case, CaseLayout, Setting
from meshwright.planner.accuracy.case_layout import recomputed_modules

# A captured graph is launched once a step; what is left a layer is its share of that.
GRAPH_LAYER_LAUNCH_S = 20e-6
# A fused loss holds the 16-bit logits, a contiguous copy whose place the gradient takes, and its 16-bit hand-over.
FUSED_LOGITS_BYTES = 6
# A dispatcher that sends tokens to their experts' ranks takes them out once each way; one that gathers all tokens does
# what the stack says.
SENT_PERMUTATION_BYTES = 8
GATHERING = "allgather"
# Bytes of a gradient that is added up in a format.
GRADIENT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
# The switches of a layout that may hold the name of what does it.
SETTINGS = tuple(name for name, field in CaseLayout.model_fields.items() if field.annotation == Setting | None)
# What torch.compile makes one kernel of each, and that it does.
COMPILED = ("compiled", "fused_norm", "fused_rotary", "fused_activation", "fused_residual")


def stack_for(
    framework: str | None, stacks: Sequence[StackEntry], *, default: StackEntry
) -> tuple[StackEntry, tuple[str, ...]]:
    """Give the stack whose prefix of `framework` is the longest, else `default`, and what had to be assumed."""
    name = (framework or "").casefold()
    matches = [
        (len(prefix), stack) for stack in stacks for prefix in stack.frameworks if name.startswith(prefix.casefold())
    ]
    if matches:
        return max(matches, key=lambda match: match[0])[1], ()
    told = f"the catalog has no stack for {framework!r}" if framework else "no framework is named"
    return default, (f"{told}: it is taken to behave like {default.name}",)


def with_switches(stack: StackEntry, case: Case) -> StackEntry:
    """Lay the switches that a case gives over the defaults of its stack.

    Dropout is by default that of the script for GPT, and off for gated, Llama-like models, which are trained without
    (arXiv 2302.13971, section 2.2). Megatron's own ("local") layers keep scores unless told to use flash attention.
    """
    layout = case.layout
    defaults: dict[str, object] = {"dropout": stack.dropout and not case.model.gated_mlp}
    if str(layout.transformer_impl).casefold() == "local" or stack.fused_attention_on_request:
        defaults["fused_attention"] = False
    if modules := recomputed_modules(layout):
        defaults["selective_recompute"] = modules
    if case.model.moe is not None and (case.model.moe.dispatcher or GATHERING) != GATHERING:
        defaults["permutation_bytes"] = SENT_PERMUTATION_BYTES
    return stack.model_copy(update=defaults | _overlaps(layout) | _kernels(layout, stack) | _formats(layout))


def switch_assumptions(layout: CaseLayout) -> Iterator[str]:
    """Give a sentence for each switch of a case that changes nothing, for nothing here knows it."""
    if layout.overlap is not None and not _hides_nothing(layout):
        yield f"layout.overlap {layout.overlap!r:.40} isn't known: what overlaps is what the software does by default"
    for name in SETTINGS:
        if isinstance(setting := getattr(layout, name), str):
            yield f"layout.{name} {setting!r:.40} is taken for on"
    if layout.grad_accumulation is not None and _accumulated_bytes(layout.grad_accumulation) is None:
        yield f"layout.grad_accumulation {layout.grad_accumulation!r:.40} isn't known: it changes nothing"
    for key in layout.unknown_keys:
        yield f"layout.{key:.60} isn't a known switch: it changes nothing"


def _hides_nothing(layout: CaseLayout) -> bool:
    if isinstance(layout.overlap, str):
        return re.match(r"none\b", layout.overlap.casefold()) is not None
    return layout.overlap is False


def _overlaps(layout: CaseLayout) -> dict[str, bool]:
    if _hides_nothing(layout):
        every = ("overlap_gradients", "overlap_parameters", "overlap_tensor", "overlap_pipeline")
        return dict.fromkeys(every, False)
    given = {
        "overlap_gradients": layout.overlap_grad_reduce,
        "overlap_parameters": layout.overlap_param_gather,
        "overlap_tensor": layout.tp_comm_overlap if layout.tp_comm_overlap is not None else layout.async_tp,
    }
    return {name: bool(setting) for name, setting in given.items() if setting is not None}


def _kernels(layout: CaseLayout, stack: StackEntry) -> dict[str, bool | float | LossKernels]:
    update: dict[str, bool | float | LossKernels] = {}
    if layout.flash_attention is not None:
        update["fused_attention"] = bool(layout.flash_attention)
    if layout.compile:
        update |= dict.fromkeys(COMPILED, True)
    if layout.dropout is not None:
        update["dropout"] = layout.dropout > 0
    if layout.cross_entropy_fusion:
        update |= {"loss": LossKernels.FUSED, "logits_bytes": FUSED_LOGITS_BYTES}
    elif layout.cross_entropy_fusion is not None and stack.loss is LossKernels.FUSED:
        update |= {"loss": LossKernels.OPERATORS}
    if layout.fp8_params:
        update["narrow_parameters"] = True
    if layout.deterministic:
        update["deterministic"] = True
    if layout.no_accumulation_fusion:
        update["fused_accumulation"] = False
    if layout.cuda_graph:
        update |= {"layer_launch": GRAPH_LAYER_LAUNCH_S, "expert_launch": 0.0}
    return update


def _accumulated_bytes(formats: str | None) -> int | None:
    """Give the bytes of a gradient that is added up in one of some formats ("fp16/bf16"), None where none is known."""
    sizes = {GRADIENT_BYTES.get(name) for name in (formats or "").split("/")}
    return sizes.pop() if len(sizes) == 1 else None


def _formats(layout: CaseLayout) -> dict[str, bool | int]:
    update: dict[str, bool | int] = {}
    if size := _accumulated_bytes(layout.grad_accumulation):
        update |= {"gradient_bytes": size, "fp16_gradient_bytes": size, "reduce_bytes": size}
    if layout.reuse_fp32_param:
        update["master_bytes"] = 2
    return update
