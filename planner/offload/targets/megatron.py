"""Megatron-Core: a fraction of the optimizer on the host, modules whose inputs leave, modules computed again.

    attn_norm core_attn attn_proj mlp_norm   leave: the layer's input; queries, keys, values; weighted values; what is
                                             behind attention
    layernorm, mlp or moe, moe_act           computed again: outputs of norms; the MLP; its activation

A fraction is of groups, not of bytes: the last layer's module never leaves, and of the others in the forward pass's
order int(groups x (1 - fraction)) of the last ones stay (fine_grained_activation_offload.py of Megatron-Core).
attn_proj leaves with core_attn only. What is computed again doesn't leave.
"""

from collections.abc import Iterator
from itertools import chain, combinations
from typing import Any

import numpy as np

from meshwright.costmodels.layout import Layout
from meshwright.costmodels.tensor_classes import TensorClass
from meshwright.planner.offload.baselines import ALL_ON_DEVICE, TWIN_FLOW
from meshwright.planner.offload.decision import Choice, Choices, Decision
from meshwright.planner.offload.problem import CLASSES, Problem
from meshwright.planner.offload.targets.candidate import Candidate
from meshwright.planner.offload.uniform import checkpointed, decided, uniform

OFFLOADED = {
    "attn_norm": TensorClass.INPUT,
    "core_attn": TensorClass.QKV,
    "attn_proj": TensorClass.ATTENTION,
    "mlp_norm": TensorClass.RESIDUAL,
}
RECOMPUTED: dict[str, tuple[TensorClass, ...]] = {
    "layernorm": (TensorClass.NORMS,),
    "mlp": (TensorClass.MLP, TensorClass.ACTIVATION),
}
# Parts of all groups that are tried.
STEPS = 8


def candidates(problem: Problem, layout: Layout) -> Iterator[Candidate]:
    """Give all that Megatron-Core can be told for a layout."""
    shares = TWIN_FLOW if layout.zero_stage >= 1 or layout.world_size == 1 else ALL_ON_DEVICE
    yield Candidate(
        decision=decided(problem, checkpointed(problem), whole=True), shares=shares, words=("recompute=full",)
    )
    for again in _subsets(RECOMPUTED):
        classes = {name: Choice.RECOMPUTE for module in again for name in RECOMPUTED[module]}
        base = uniform(problem, classes)
        for left in _subsets(OFFLOADED):
            if "attn_proj" in left and "core_attn" not in left:
                continue
            for disabled in _steps(eligible_groups(problem, left)):
                choices = _with_groups(problem, base, left, disabled=disabled)
                words = (f"recompute={','.join(again)}", f"offload={','.join(left)}", f"disabled={disabled}")
                yield Candidate(decision=decided(problem, choices), shares=shares, words=words)


def _subsets(names: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(names, size) for size in range(len(names) + 1))


def _steps(groups: int) -> list[int]:
    """Give how many groups to leave out: none to all but one."""
    return sorted({round(groups * step / STEPS) for step in range(STEPS)}) if groups else [0]


def eligible_groups(problem: Problem, modules: tuple[str, ...]) -> int:
    """Count the groups that can leave: a module of each layer but the last."""
    return len(modules) * (len(problem.layers) - 1)


def _with_groups(problem: Problem, base: Choices, modules: tuple[str, ...], *, disabled: int) -> Choices:
    choices = base.copy()
    order = [
        (layer, CLASSES.index(OFFLOADED[module])) for layer in range(len(problem.layers) - 1) for module in modules
    ]
    for layer, kind in order[: len(order) - disabled]:
        if problem.layers.kept_bytes[layer, kind]:
            choices[layer, kind] = Choice.OFFLOAD
    return choices


def fraction_of(groups: int, disabled: int) -> float:
    """Give the fraction that leaves out so many of the groups: int(groups x (1 - fraction)) of them."""
    return 1.0 if not disabled else round(1 - (disabled + 0.5) / groups, 6)


def settings(problem: Problem, decision: Decision, layout: Layout, words: tuple[str, ...] = ()) -> dict[str, Any]:  # noqa: ARG001
    """Give the arguments that a decision adds, or replaces."""
    told = dict(word.split("=", 1) for word in words)
    arguments: dict[str, Any] = {}
    if decision.shares.cpu:
        arguments |= {
            "optimizer-cpu-offload": True,
            "optimizer-offload-fraction": round(float(decision.shares.cpu), 6),
            "overlap-cpu-optimizer-d2h-h2d": True,
            "use-precision-aware-optimizer": True,
        }
    modules = tuple(filter(None, told.get("offload", "").split(",")))
    if modules and np.any(decision.choices == Choice.OFFLOAD):
        fraction = fraction_of(eligible_groups(problem, modules), int(told["disabled"]))
        arguments |= {
            "fine-grained-activation-offloading": True,
            "offload-modules": modules,
            "activation-offload-fraction": fraction,
            "transformer-impl": "transformer_engine",
        }
    return arguments | _recomputation(told.get("recompute", ""))


def _recomputation(modules: str) -> dict[str, Any]:
    if modules == "full":
        return {"recompute-granularity": "full", "recompute-method": "uniform", "recompute-num-layers": 1}
    if not modules:
        return {}
    return {"recompute-granularity": "selective", "recompute-modules": tuple(modules.split(","))}
