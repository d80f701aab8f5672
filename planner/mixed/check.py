"""Holding a mixed plan against today: plan again from its own inputs, and say what moved."""

from collections.abc import Iterator
from math import isclose
from typing import Any

from meshwright.catalog.errors import Infeasible
from meshwright.planner.mixed.plan_schema import MixedPlan
from meshwright.planner.mixed.planning import plan_of_mixed

TOLERANCE = 1e-6
# What a plan says of itself that isn't compared: the version that made it, and what it was made from.
APART = ("meshwright", "inputs")


def check_mixed(plan: MixedPlan) -> tuple[str, ...]:
    """Give what moved since the plan was made, one readable line each. Raises MissingData."""
    try:
        return mixed_differences(plan, plan_of_mixed(plan.inputs).plan)
    except Infeasible as error:
        return (f"nothing fits any more: {error.message}",)


def mixed_differences(old: MixedPlan, new: MixedPlan) -> tuple[str, ...]:
    """Give what differs between two plans, one readable line each."""
    sections = [plan.model_dump(mode="json", exclude=set(APART)) for plan in (old, new)]
    return tuple(_differences("", *sections))


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:  # noqa: ANN401 - parts of a document
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _differences(f"{path}.{key}" if path else key, old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{path}.{number}", *pair)
    elif isinstance(old, float) and isinstance(new, float):
        if not isclose(old, new, rel_tol=TOLERANCE, abs_tol=TOLERANCE**2):
            yield f"{path}: {old:.6g} before, {new:.6g} now"
    elif old != new:
        yield f"{path}: {old!r:.60} before, {new!r:.60} now"
