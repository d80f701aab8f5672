"""The fastest decision that a target can express, with its settings."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

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
from meshwright.planner.offload.uniform import ON_DEVICE, ON_HOST, leanest

LISTED: Mapping[OffloadTarget, Callable[[Problem, Layout], Iterator[Candidate]]] = {
    OffloadTarget.DEEPSPEED: deepspeed.candidates,
    OffloadTarget.DEEP_OPTIMIZER_STATES: partial(deepspeed.candidates, strides=True),
    OffloadTarget.MEGATRON: megatron.candidates,
}

# How much more than the budget is tried for what would do, and how finely.
MOST_DOUBLED, HALVINGS = 2**10, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Expressed:
    """A decision that a target can express, and what it is told."""

    best: Evaluation
    settings: Mapping[str, Any]


def expressed(problem: Problem, layout: Layout, target: OffloadTarget, *, improve: bool = True) -> Expressed | None:
    """Give the fastest decision that a target can express; None where none that fits is. improve: as of rounding."""
    if target is OffloadTarget.TORCH:
        return _by_layer(problem, improve=improve)
    found = (
        (best, candidate)
        for candidate in LISTED[target](problem, layout)
        if (best := best_evaluated(_on(problem, candidate), candidate.decision, candidate.shares)) is not None
    )
    best, candidate = min(found, key=lambda pair: pair[0].step_time_s, default=(None, None))
    if best is None or candidate is None:
        return None
    told = megatron.settings if target is OffloadTarget.MEGATRON else deepspeed.settings
    return Expressed(best=best, settings=told(problem, best.decision, layout, candidate.words))


def _on(problem: Problem, candidate: Candidate) -> Problem:
    """Give the problem without drives for what doesn't say that it uses them: no launcher fills the host first."""
    return problem if np.any(candidate.shares.nvme) else without_drives(problem)


def without_drives(problem: Problem) -> Problem:
    """Give a problem whose hosts have no drives."""
    return replace(problem, host=replace(problem.host, nvme_bytes=0.0, nvme_bytes_per_s=0.0))


def least_shown_bytes(problem: Problem, layout: Layout, target: OffloadTarget) -> float | None:
    """Give the smallest budget with which a target can express something, as nvidia-smi shows it; None if none does.

    Doubles the budget until something fits, and then halves the range.
    """
    shown, low, high = problem.memory.shown_bytes, problem.memory.limit, problem.memory.limit
    while _within(problem, layout, target, high) is None:
        low, high = high, 2 * high
        if high > MOST_DOUBLED * problem.memory.limit:
            return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(problem, layout, target, middle) is None else (low, middle)
    return shown(high)


def _within(problem: Problem, layout: Layout, target: OffloadTarget, limit: float) -> Expressed | None:
    return expressed(replace(problem, memory=replace(problem.memory, limit=limit)), layout, target, improve=False)


def _by_layer(problem: Problem, *, improve: bool) -> Expressed | None:
    """Choose a layer's classes one by one, with all of the optimizer in one place."""
    still = torch.expressible(without_drives(problem))
    found: list[Evaluation] = []
    pairs: tuple[tuple[Shares, Shares], ...] = ((ON_DEVICE, ALL_ON_DEVICE), (ON_HOST, ALL_ON_HOST))
    for fixed, shares in pairs:
        optimum = relaxed(still, fixed=fixed)
        lean = best_evaluated(still, leanest(still), shares)
        others = () if lean is None else (lean,)
        best = None if optimum is None else rounded(still, optimum, shares=shares, others=others, improve=improve)
        found += [] if best is None else [best]
    if not found:
        return None
    best = min(found, key=lambda one: one.step_time_s)
    return Expressed(best=best, settings=torch.settings(still, best.decision))
