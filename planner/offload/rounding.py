"""From the optimum of the linear program to a decision of whole layers and classes.

A class of a layer becomes what the optimum has most of, at several thresholds between staying and leaving the device,
or what spreads as many evenly over the layers, and the optimizer gets its best shares (best_shares.py). From the
fastest that fits, single classes and layers change as long as that is faster, those first of which the optimum had
parts.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, product

import numpy as np

from meshwright.costmodels.layout import FloatArray
from meshwright.planner.offload.best_shares import with_best_shares
from meshwright.planner.offload.decision import PARTS, Choice, Choices, Decision
from meshwright.planner.offload.evaluation import Evaluation, evaluated
from meshwright.planner.offload.linear_program import Relaxed
from meshwright.planner.offload.optimizer_law import Shares
from meshwright.planner.offload.problem import Problem

# From how small a part on a class doesn't stay.
THRESHOLDS = (0.9, 0.7, 0.5, 0.3, 0.1, 1e-3)
# Decisions of like layers that are tried in pairs.
SEVERAL = 20
# Ways to spread classes over layers that are tried.
STARTS = 60
GOLDEN = 0.6180339887
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
    fastest = [min(each, key=lambda one: one.step_time_s) for each in (found, tuple(others)) if each]
    if not improve:
        return min(fastest, key=lambda one: one.step_time_s, default=None)
    best: Evaluation | None = None
    for one in chain(fastest, _alike(problem, optimum, shares)):
        changed = _improved(problem, one, optimum, shares)
        best = changed if best is None or changed.step_time_s < best.step_time_s else best
        if best.step_time_s <= optimum.step_time_s * (1 + CLOSE):
            break
    return best


def _starts(problem: Problem, optimum: Relaxed) -> Iterator[Decision]:
    gone = optimum.leave + optimum.again
    larger = np.where(optimum.again > optimum.leave, Choice.RECOMPUTE, Choice.OFFLOAD)
    streamed = spread(optimum.streamed * PARTS) / PARTS
    for phases in _phases(optimum.leave.shape[1]):
        choices = _spread_choices(optimum, phases)
        for streams in (streamed, np.floor(optimum.streamed * PARTS) / PARTS):
            yield Decision(choices=choices, streamed=streams, shares=optimum.shares)
    for threshold in THRESHOLDS:
        choices = np.where(gone >= threshold, larger, Choice.KEEP).astype(np.int8)
        yield Decision(choices=choices, streamed=streamed, shares=optimum.shares)
        # As many whole layers of each class as the optimum has in all, the first ones.
        first = _first_layers(problem, optimum, threshold)
        yield Decision(choices=first, streamed=streamed, shares=optimum.shares)
        # No more than the optimum has of parameters that stay, where nothing else can make room for them.
        more = np.ceil(optimum.streamed * PARTS - PARTIAL) / PARTS
        yield Decision(choices=choices, streamed=more, shares=optimum.shares)


def _alike(problem: Problem, optimum: Relaxed, shares: Shares | None) -> Iterator[Evaluation]:
    """Give the fastest decision that treats layers alike, or every other, but for the last; none if none fits.

    What leaves the last layer is waited for. As many parameters stream as in the optimum.
    """
    tried = (best_evaluated(problem, row, shares) for row in _rows(problem, optimum))
    best = sorted((one for one in tried if one is not None), key=lambda one: one.step_time_s)[:SEVERAL]
    for one, other in product(best[:], repeat=2):
        choices = one.decision.choices.copy()
        choices[::2] = other.decision.choices[::2]
        choices[-1, choices[-1] == Choice.OFFLOAD] = Choice.KEEP
        mixed = best_evaluated(problem, replace(one.decision, choices=choices), shares)
        best += [] if mixed is None else [mixed]
    yield from sorted(best, key=lambda one: one.step_time_s)[:1]


def _rows(problem: Problem, optimum: Relaxed) -> Iterator[Decision]:
    sizes, again = problem.layers.kept_bytes.max(axis=0).tolist(), np.atleast_1d(problem.again.all(axis=0)).tolist()
    options = [
        [choice for choice in Choice if choice == Choice.KEEP or (size and (choice != Choice.RECOMPUTE or possible))]
        for size, possible in zip(sizes, again, strict=True)
    ]
    streamed = np.floor(optimum.streamed * PARTS) / PARTS
    for row in product(*options):
        choices = np.tile(np.array(row, dtype=np.int8), (len(problem.layers), 1))
        yield Decision(choices=choices, streamed=streamed, shares=optimum.shares)


def _phases(classes: int) -> Iterator[FloatArray]:
    """Give where each class begins to count layers: together, and in many ways apart, so that they rarely coincide."""
    yield np.full(classes, 0.5)
    yield np.full(classes, 0.999)
    for start in range(STARTS):
        yield np.mod(start * GOLDEN + np.arange(classes) * GOLDEN**2 * (1 + start % 5), 1.0)


def spread(shares: FloatArray, phases: FloatArray | float = 0.5) -> FloatArray:
    """Give whole numbers whose sums from the first on are those of the shares and a phase, rounded down.

    Args:
        shares: one or more columns, [layers] or [layers, classes].
        phases: from 0 to 1, of each column; at a half sums are those nearest to the shares'.

    """
    sums = np.floor(np.cumsum(shares, axis=0) + phases + PARTIAL)
    return np.asarray(np.diff(sums, axis=0, prepend=np.zeros_like(sums[:1])))


def _spread_choices(optimum: Relaxed, phases: FloatArray) -> Choices:
    """Choose as many layers of each class as the optimum has, evenly spread where it has parts of each."""
    gone = spread(optimum.leave + optimum.again, phases) >= 1
    share = optimum.leave / np.maximum(optimum.leave + optimum.again, PARTIAL)
    leave = gone & (spread(np.where(gone, share, 0.0), phases) >= 1)
    return np.where(leave, Choice.OFFLOAD, np.where(gone, Choice.RECOMPUTE, Choice.KEEP)).astype(np.int8)


def _first_layers(problem: Problem, optimum: Relaxed, threshold: float) -> Choices:
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
    evaluations, faster = 0, True
    while faster:
        faster = False
        for change in _changes(problem, optimum):
            if best.step_time_s <= optimum.step_time_s * (1 + CLOSE) or evaluations >= MOST_EVALUATIONS:
                return best
            changed = change(best.decision)
            evaluations += changed is not None
            found = None if changed is None else best_evaluated(problem, changed, shares)
            if found is not None and found.step_time_s < best.step_time_s * (1 - 1e-9):
                best, faster = found, True
    return best


Change = Callable[[Decision], Decision | None]
"""A change of a decision; None where it is so already, or can't be."""


def _changes(problem: Problem, optimum: Relaxed) -> Iterator[Change]:
    """Give changes of one class or layer, those first that the optimum is undecided about."""
    gone = optimum.leave + optimum.again
    undecided = np.minimum(np.abs(gone), np.abs(1 - gone)) + np.minimum(optimum.leave, optimum.again)
    for index in np.argsort(-undecided, axis=None, kind="stable"):
        layer, kind = divmod(int(index), undecided.shape[1])
        for choice in Choice:
            if problem.layers.kept_bytes[layer, kind] and (choice != Choice.RECOMPUTE or problem.again[layer, kind]):
                yield partial(_chosen, layer=layer, kind=kind, choice=choice)
    for layer in np.flatnonzero(problem.layers.weight_bytes).tolist() if problem.streamable else ():
        for part in (-1, 1):
            yield partial(_streaming, layer=layer, part=part / PARTS)


def _chosen(decision: Decision, *, layer: int, kind: int, choice: Choice) -> Decision | None:
    if decision.choices[layer, kind] == choice:
        return None
    choices = decision.choices.copy()
    choices[layer, kind] = choice
    return replace(decision, choices=choices)


def _streaming(decision: Decision, *, layer: int, part: float) -> Decision | None:
    streamed = decision.streamed.copy()
    streamed[layer] += part
    return replace(decision, streamed=streamed) if 0 <= streamed[layer] <= 1 else None
