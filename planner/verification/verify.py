"""All checks of a plan, in the order in which they build on one another."""

from collections.abc import Sequence

from meshwright.catalog.errors import InputError
from meshwright.planner.plan_schema import Plan
from meshwright.planner.verification.batch import batch, micro_batches
from meshwright.planner.verification.check import Check, Failure, Found, Look, checked
from meshwright.planner.verification.exchange import exchange
from meshwright.planner.verification.like_chunks import like_chunks, shapes
from meshwright.planner.verification.memory import memory
from meshwright.planner.verification.mesh import degrees, groups
from meshwright.planner.verification.offload import offload
from meshwright.planner.verification.placement import chunks, experts, layers
from meshwright.planner.verification.shards import shards
from meshwright.planner.verification.step import plan_orders, step
from meshwright.planner.verification.tally import tally
from meshwright.planner.verification.timing import breakdown, work


def _exchange(plan: Plan) -> Found:
    """Match the messages of two micro-batches a stage at the most: orders repeat from there on."""
    count, rounds = micro_batches(plan), 2 * len(plan.stages)
    several = min(count, rounds + count % rounds)
    try:
        return exchange(plan, plan_orders(plan, several))
    except ValueError as error:
        return f"messages of {several} micro-batches", [("layout.schedule", str(error))]


# By name, the check, and those that must hold before it can be made.
CHECKS: dict[str, tuple[Look, tuple[str, ...]]] = {
    "degrees": (degrees, ()),
    "groups": (groups, ("degrees",)),
    "batch": (batch, ()),
    "shards": (shards, ()),
    "layers": (layers, ()),
    "chunks": (chunks, ("layers",)),
    "experts": (experts, ("groups",)),
    "messages": (_exchange, ("layers", "batch")),
    "memory": (memory, ()),
    "time": (breakdown, ()),
    "passes": (shapes, ("chunks",)),
    "like chunks": (like_chunks, ("passes",)),
    "work": (work, ("passes", "batch")),
    "step": (step, ("passes", "batch")),
    "search": (tally, ()),
}


def verify(plan: Plan, *, devices: int | None = None) -> tuple[Check, ...]:
    """Check all invariants of a plan, and that it is for so many devices where their number is given."""
    found: dict[str, Check] = {}
    for name, (look, needs) in CHECKS.items():
        broken = [need for need in needs if found[need].failures or not found[need].made]
        if broken:
            found[name] = Check(name=name, what=f"needs {' and '.join(broken)} to hold", made=False)
        else:
            found[name] = checked(name, look, plan)
    if plan.offload is not None:
        found["offload"] = checked("offload", offload, plan)
    return (*_wanted(plan, devices), *found.values())


def _wanted(plan: Plan, devices: int | None) -> tuple[Check, ...]:
    if devices is None:
        return ()
    wrong = Failure(path="mesh.devices", message=f"is {plan.mesh.devices}; the plan is to run on {devices} devices")
    failures = () if plan.mesh.devices == devices else (wrong,)
    return (Check(name="devices", what=f"the plan is for {devices} devices", failures=failures),)


def require_verified(checks: Sequence[Check], *, file: str) -> None:
    """Raise InputError with the first broken invariant, if there is one."""
    failures = [failure for check in checks for failure in check.failures]
    if not failures:
        return
    more = f"; {len(failures) - 1} more are listed" if len(failures) > 1 else ""
    hint = f"make the plan again with `meshwright plan`{more}"
    raise InputError(failures[0].message, file=file, path=failures[0].path, hint=hint)
