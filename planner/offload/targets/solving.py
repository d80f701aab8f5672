"""The fastest decision that a target can express, with its settings."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from meshwright.costmodels.layout import Layout
from meshwright.planner.offload.baselines import ALL_ON_DEVICE, ALL_ON_HOST
from meshwright.planner.offload.evaluation import Evaluation
from meshwright.planner.offload.linear_program import relaxed
from meshwright.planner.offload.optimizer_law import Shares
from meshwright.planner.offload.problem import Problem
from meshwright.planner.offload.rounding import best_evaluated, rounded
from meshwright.planner.offload.target import OffloadTarget
from meshwright.planner.offload.targets import deepspeed, megatron, torch
from meshwright.planner.offload.targets.candidate import Candidate
from meshwright.planner.offload.uniform import ON_DEVICE, ON_HOST

LISTED: Mapping[OffloadTarget, Callable[[Problem, Layout], Iterator[Candidate]]] = {
    OffloadTarget.DEEPSPEED: deepspeed.candidates,
    OffloadTarget.DEEP_OPTIMIZER_STATES: partial(deepspeed.candidates, strides=True),
    OffloadTarget.MEGATRON: megatron.candidates,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expressed:
    """A decision that a target can express, and what it is told."""

    best: Evaluation
    settings: Mapping[str, Any]


def expressed(problem: Problem, layout: Layout, target: OffloadTarget) -> Expressed | None:
    """Give the fastest decision that a target can express; None where none that fits is."""
    if target is OffloadTarget.TORCH:
        return _by_layer(problem)
    found = (
        (best, candidate)
        for candidate in LISTED[target](problem, layout)
        if (best := best_evaluated(problem, candidate.decision, candidate.shares)) is not None
    )
    best, candidate = min(found, key=lambda pair: pair[0].step_time_s, default=(None, None))
    if best is None or candidate is None:
        return None
    told = megatron.settings if target is OffloadTarget.MEGATRON else deepspeed.settings
    return Expressed(best=best, settings=told(problem, best.decision, layout, candidate.words))


def _by_layer(problem: Problem) -> Expressed | None:
    """Choose a layer's classes one by one, with all of the optimizer in one place."""
    still = replace(problem, streamable=False)
    found: list[Evaluation] = []
    pairs: tuple[tuple[Shares, Shares], ...] = ((ON_DEVICE, ALL_ON_DEVICE), (ON_HOST, ALL_ON_HOST))
    for fixed, shares in pairs:
        optimum = relaxed(still, fixed=fixed)
        best = None if optimum is None else rounded(still, optimum, shares=shares)
        found += [] if best is None else [best]
    if not found:
        return None
    best = min(found, key=lambda one: one.step_time_s)
    return Expressed(best=best, settings=torch.settings(still, best.decision))
