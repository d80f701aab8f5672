"""What the search says of the shapes: each is one of these islands, none is faster, the bound is the least of all."""

from itertools import pairwise
from math import inf, isclose

from meshwright.planner.mixed.plan_schema import MixedPlan
from meshwright.planner.verification.check import ROUNDING, Failures, Found, same
from meshwright.planner.verification.mixed.joins import joins_of

Chains = tuple[tuple[int, ...], ...]

# Of more islands no pipeline passes several.
MOST_PIPED = 4


def every_shape(islands: int) -> set[Chains]:
    """Give all ways to put islands in chains, by adding one island after another: idle, at a place, or alone.

    Of many islands each is alone or idle.
    """
    found: set[Chains] = {()}
    for island in range(islands):
        fresh: set[Chains] = set(found)
        for chains in found:
            fresh.add((*chains, (island,)))
            for number, chain in enumerate(chains if islands <= MOST_PIPED else ()):
                for place in range(len(chain) + 1):
                    grown = (*chain[:place], island, *chain[place:])
                    fresh.add((*chains[:number], grown, *chains[number + 1 :]))
        found = fresh
    return found - {()}


def search(plan: MixedPlan) -> Found:
    """Check the shapes, the bound, the gap and what is claimed of them."""
    return f"{len(plan.search.shapes)} shapes, none faster; the gap is {plan.search.gap:.2%}", _search(plan)


def _search(plan: MixedPlan) -> Failures:
    told, step_s = plan.search, plan.predicted.step_time_s
    if told.lower_bound > step_s * (1 + ROUNDING):
        yield "search.lower_bound", f"{told.lower_bound:.6g} s is above the step"
    if not isclose(told.gap, max(step_s / told.lower_bound - 1, 0.0), abs_tol=ROUNDING):
        yield "search.gap", f"is {told.gap:.3g}; the step and its bound make it {step_s / told.lower_bound - 1:.3g}"
    if (told.proof == "optimal") != (told.gap == 0):
        yield "search.proof", "goes with a gap of 0, and only with that"
    for number, shape in enumerate(told.shapes):
        if shape.step_time_s is not None and shape.step_time_s < step_s * (1 - ROUNDING):
            yield f"search.shapes.{number}.step_time_s", f"is {shape.step_time_s}, faster than the plan"
        if shape.step_time_s is not None and (shape.bound_s or 0.0) > shape.step_time_s * (1 + ROUNDING):
            yield f"search.shapes.{number}.bound_s", f"is {shape.bound_s}, above its step"
    ranks = [shape.step_time_s or shape.bound_s or inf for shape in told.shapes]
    for number, (before, after) in enumerate(pairwise(ranks), start=1):
        if after < before * (1 - ROUNDING):
            yield f"search.shapes.{number}", f"comes behind {before} s, with {after} s: shapes are in order"
    least_s = min([step_s, *(shape.bound_s for shape in told.shapes if shape.bound_s is not None)])
    if not same(told.lower_bound, least_s):
        yield "search.lower_bound", f"is {told.lower_bound}; the least of the shapes is {least_s}"
    own = [shape.step_time_s for shape in told.shapes if shape.shape == plan.mixed.shape]
    if len(own) != 1 or own[0] is None or not same(own[0], step_s):
        yield "search.shapes", f"don't have {plan.mixed.shape!r:.80} once, with the plan's step"
    yield from _shapes(plan)


def _shapes(plan: MixedPlan) -> Failures:
    names, joins = [island.name for island in plan.mixed.islands], joins_of(plan)
    expected = {
        frozenset(" > ".join(names[island] for island in chain) for chain in chains)
        for chains in every_shape(len(names))
        if all(frozenset(pair) in joins for chain in chains for pair in pairwise(chain))
    }
    told = [frozenset(shape.shape.split(" | ")) for shape in plan.search.shapes]
    unknown = next((number for number, shape in enumerate(told) if shape not in expected), None)
    if unknown is not None:
        yield f"search.shapes.{unknown}.shape", f"{plan.search.shapes[unknown].shape!r:.80} is no way to join islands"
    elif len(told) != len(expected) or len(set(told)) != len(told):
        yield "search.shapes", f"are {len(told)}, of {len(expected)} ways to join the islands"
