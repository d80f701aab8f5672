"""All checks of a plan of a mixed cluster, in the order in which they build on one another."""

from collections.abc import Callable

from meshwright.planner.mixed.plan_schema import MixedPlan
from meshwright.planner.verification.check import Check, Failure, Found
from meshwright.planner.verification.mixed.batch import batch, gradients
from meshwright.planner.verification.mixed.islands import islands, shape
from meshwright.planner.verification.mixed.layouts import degrees, placement
from meshwright.planner.verification.mixed.links import links
from meshwright.planner.verification.mixed.passes import passes
from meshwright.planner.verification.mixed.search import search
from meshwright.planner.verification.mixed.timing import memory, time
from meshwright.planner.verification.mixed.ways import way

Look = Callable[[MixedPlan], Found]

# By name, the check, and those that must hold before it can be made.
CHECKS: dict[str, tuple[Look, tuple[str, ...]]] = {
    "islands": (islands, ()),
    "shape": (shape, ()),
    "degrees": (degrees, ("islands",)),
    "layers": (placement, ("islands",)),
    "batch": (batch, ()),
    "gradients": (gradients, ()),
    "links": (links, ("islands",)),
    "way": (way, ()),
    "memory": (memory, ("islands",)),
    "time": (time, ("islands",)),
    "passes": (passes, ("layers", "batch", "links")),
    "search": (search, ("islands",)),
}


def verify_mixed(plan: MixedPlan, *, devices: int | None = None) -> tuple[Check, ...]:
    """Check a plan of a mixed cluster; `devices` is how many it is to run on, if that is asked."""
    found: dict[str, Check] = {}
    if devices is not None:
        found["devices"] = _wanted(plan, devices)
    for name, (look, needs) in CHECKS.items():
        broken = [need for need in needs if found[need].failures or not found[need].made]
        if broken:
            found[name] = Check(name=name, what=f"needs {' and '.join(broken)} to hold", made=False)
            continue
        what, failures = look(plan)
        told = tuple(Failure(path=path, message=message) for path, message in failures)
        found[name] = Check(name=name, what=what, failures=told)
    return tuple(found.values())


def _wanted(plan: MixedPlan, devices: int) -> Check:
    wrong = Failure(path="mixed.islands", message=f"{plan.devices} devices train, not {devices}")
    failures = () if plan.devices == devices else (wrong,)
    return Check(name="devices", what=f"the plan trains on {devices} devices", failures=failures)
