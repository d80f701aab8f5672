"""From the optimum of the linear program to a decision of whole layers and classes.

A class of a layer becomes what the optimum has most of, at several thresholds between staying and leaving the device,
and the optimizer gets its best shares then (best_shares.py). From the fastest that fits, single classes and layers
change as long as that is faster, those first of which the optimum had parts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from meshwright.planner.offload.best_shares import with_best_shares
from meshwright.planner.offload.decision import Choice, Decision
from meshwright.planner.offload.evaluation import Evaluation, evaluated
from meshwright.planner.offload.linear_program import Relaxed
from meshwright.planner.offload.optimizer_law import Shares
from meshwright.planner.offload.problem import Problem

# From how small a part on a class doesn't stay.
THRESHOLDS = (0.9, 0.7, 0.5, 0.3, 0.1, 1e-3)
PARTIAL = 1e-6
# How close to the bound is close enough to stop.
CLOSE = 4e-3
MOST_EVALUATIONS = 800


def rounded(
    problem: Problem,
    optimum: Relaxed,
    *,
    shares: Shares | None = None,
    others: Iterable[Evaluation] = (),
    improve: bool = True,
) -> Evaluation | None:
    """Give the fastest decision found near an optimum; None where none fits.

    Args:
        problem: the problem.
        optimum: of its linear program.
        shares: of the optimizer to choose from, arrays; by default all of whole subgroups.
        others: decisions to begin from if they are faster.
        improve: whether to change single classes and layers then.

    """
    starts = _starts(problem, optimum)
    found = [one for one in (best_evaluated(problem, start, shares) for start in starts) if one is not None]
    found += [*others]
    if not found:
        return None
    best = min(found, key=lambda one: one.step_time_s)
    return _improved(problem, best, optimum, shares) if improve else best


def _starts(problem: Problem, optimum: Relaxed) -> Iterator[Decision]:
    for threshold in THRESHOLDS:
        gone = optimum.leave + optimum.again
        choices = np.where(optimum.again > optimum.leave, Choice.RECOMPUTE, Choice.OFFLOAD)
        choices = np.where(gone >= threshold, choices, Choice.KEEP).astype(np.int8)
        yield Decision(choices=choices, streamed=optimum.streamed >= threshold, shares=optimum.shares)
        # As many whole layers of each class as the optimum has in all, the first ones.
        counts = _first_layers(problem, optimum, threshold)
        yield Decision(choices=counts, streamed=optimum.streamed >= threshold, shares=optimum.shares)


def _first_layers(problem: Problem, optimum: Relaxed, threshold: float) -> np.ndarray:
    choices = np.zeros_like(optimum.leave, dtype=np.int8)
    layer = np.arange(len(problem.layers))[:, np.newaxis]
    leave = np.floor(optimum.leave.sum(axis=0) + 1 - threshold)
    again = np.floor(optimum.again.sum(axis=0) + 1 - threshold)
    choices[(layer < leave) & (problem.layers.kept_bytes > 0)] = Choice.OFFLOAD
    back = (layer >= leave) & (layer < leave + again) & problem.again
    choices[back & (problem.layers.kept_bytes > 0)] = Choice.RECOMPUTE
    return choices


def best_evaluated(problem: Problem, decision: Decision, shares: Shares | None = None) -> Evaluation | None:
    """Evaluate a decision with the best shares for it, of those given; None where it fits with none of them."""
    shared = with_best_shares(problem, decision, shares)
    return None if shared is None else evaluated(problem, shared)


def _improved(problem: Problem, best: Evaluation, optimum: Relaxed, shares: Shares | None) -> Evaluation:
    """Change one class or layer at a time as long as steps get faster, and the bound isn't near."""
    evaluations, again = 0, True
    while again:
        again = False
        for change in _changes(problem, best.decision, optimum):
            if best.step_time_s <= optimum.step_time_s * (1 + CLOSE) or evaluations >= MOST_EVALUATIONS:
                return best
            evaluations += 1
            found = best_evaluated(problem, change, shares)
            if found is not None and found.step_time_s < best.step_time_s * (1 - 1e-9):
                best, again = found, True
                break
    return best


def _changes(problem: Problem, decision: Decision, optimum: Relaxed) -> Iterator[Decision]:
    """Give decisions with one change, those first that the optimum is undecided about."""
    gone = optimum.leave + optimum.again
    undecided = np.minimum(np.abs(gone), np.abs(1 - gone)) + np.minimum(optimum.leave, optimum.again)
    for index in np.argsort(-undecided, axis=None, kind="stable"):
        layer, kind = np.unravel_index(int(index), undecided.shape)
        for choice in Choice:
            possible = choice is not Choice.RECOMPUTE or problem.again[layer, kind]
            if choice != decision.choices[layer, kind] and possible and problem.layers.kept_bytes[layer, kind]:
                choices = decision.choices.copy()
                choices[layer, kind] = choice
                yield replace(decision, choices=choices)
    if problem.streamable and problem.layers.weight_bytes.any():
        for number in range(len(problem.layers)):
            streamed = decision.streamed.copy()
            streamed[number] = not streamed[number]
            yield replace(decision, streamed=streamed)
