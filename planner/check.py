"""Holding a plan against today: plan again from its own inputs, and say what moved."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.planner.given_layout import plan_of_layout
from meshwright.planner.job_inputs import OverlayGiven, inputs_today
from meshwright.planner.plan_schema import Inputs, Plan
from meshwright.planner.planning import plan_of
from meshwright.planner.repredict import repredicted
from meshwright.planner.verification.check import checked
from meshwright.planner.verification.offload import offload

TOLERANCE = 1e-6
# Differences of two figures: near nothing, where their own last digits are large beside them.
RATIOS_LESS_ONE = ("gap", "slower_by")
# What an entry says of itself, without an effect on any prediction.
PROSE = ("source", "published_parameters", "vendor", "family", "reference_cluster", "frameworks", "digest")


def replan(plan: Plan, overlays: Sequence[OverlayGiven] | None = None) -> Plan:
    """Plan again from a plan's own inputs, with today's catalog for those that came from it.

    `overlays` take the place of those that the plan was made with.

    A layout that was given is given again.

    Raises InputError where the catalog no longer has one of them, the plan was made from another one, or something
    leaves its device; MissingData and Infeasible.
    """
    if plan.replica_batches is not None:
        raise InputError(
            "are of a plan for what was left of a cluster, which isn't made from its own inputs alone",
            path="replica_batches",
            hint="make it again with `meshwright replan` from the plan before it",
        )
    if plan.offload is not None:
        raise InputError(
            "is of a budget and a target of its own, so that it can't be decided again from the inputs alone",
            path="offload",
            hint="decide it again with `meshwright offload --plan FILE -o FILE`",
        )
    inputs = inputs_today(plan.inputs, overlays)
    if plan.search.proof == "given":
        return plan_of_layout(inputs, plan.layout.layout())
    return plan_of(inputs).plan


def check_plan(plan: Plan, overlays: Sequence[OverlayGiven] | None = None) -> tuple[str, ...]:
    """Give what moved since the plan was made, one readable line each; nothing where the plan still holds.

    `overlays` take the place of those that the plan was made with. What leaves the device isn't decided again, but has
    to be of a piece.

    Raises InputError and MissingData where it can't be planned again.
    """
    if plan.offload is not None:
        failures = checked("offload", offload, plan).failures
        if failures:
            return tuple(f"{failure.path}: {failure.message}" for failure in failures)
    try:
        return differences(plan, _today(plan, inputs_today(plan.inputs, overlays)))
    except Infeasible as error:
        return (f"nothing fits any more: {error.message}",)


def _today(plan: Plan, inputs: Inputs) -> Plan:
    """Plan again without a limit on time.

    Where one bound, how far a search gets is luck, and where the layout was given, there was none: predict it again.
    """
    if plan.search.proof != "optimal":
        return repredicted(plan, inputs)
    job = inputs.job.model_copy(update={"time_limit_s": None})
    return plan_of(inputs.model_copy(update={"job": job})).plan


def differences(old: Plan, new: Plan) -> tuple[str, ...]:
    """Give what differs in layout, predictions, search and runners-up (beyond 1e-6), and the changed inputs behind it.

    Changed inputs alone are no difference: what counts is whether the plan still holds.
    """
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    moved = list(_moved("layout", before["layout"], after["layout"]))
    if not moved:  # else these follow from it
        moved += [*_moved("stages", before["stages"], after["stages"]), *_moved("mesh", before["mesh"], after["mesh"])]
    moved += _moved("predicted", before["predicted"], after["predicted"])
    moved += _moved("search", _proved(before["search"]), _proved(after["search"]))
    moved += _moved("alternatives", before["alternatives"], after["alternatives"])
    if not moved:
        return ()
    causes = _moved("inputs", _without_prose(before["inputs"]), _without_prose(after["inputs"]))
    version = _moved("meshwright", old.meshwright, new.meshwright)
    return (*moved, *causes, *version)


def _proved(search: dict[str, Any]) -> dict[str, Any]:
    """Give what a search proved, without how much it had to look at."""
    return {name: search[name] for name in ("candidates", "lower_bound", "gap", "proof", "unrestricted")}


def _moved(path: str, old: Any, new: Any) -> Iterator[str]:  # noqa: ANN401 - whatever a plan file holds
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _moved(f"{path}.{key}", old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for position, pair in enumerate(zip(old, new, strict=True)):
            yield from _moved(f"{path}.{position}", *pair)
    elif _is_number(old) and _is_number(new):
        is_difference = path.endswith(RATIOS_LESS_ONE)
        if not math.isclose(old, new, rel_tol=TOLERANCE, abs_tol=TOLERANCE if is_difference else 0.0):
            yield f"{path}: {_shown(old)} -> {_shown(new)}" + (f" ({new / old - 1:+.2%})" if old else "")
    elif old != new:
        yield f"{path}: {_shown(old)} -> {_shown(new)}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return f"{len(value)} items"
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _without_prose(document: Any) -> Any:  # noqa: ANN401 - whatever an entry holds
    if isinstance(document, dict):
        return {key: _without_prose(value) for key, value in document.items() if key not in PROSE}
    return [_without_prose(item) for item in document] if isinstance(document, list) else document
