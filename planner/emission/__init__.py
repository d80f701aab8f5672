"""Plans as files that launchers run.

One package a target, each with the same modules: `obstacles` (what it can't express), the settings it takes, `files`
(their text, and what a node runs), and `reading` where its files can be read back.
"""

from collections.abc import Mapping

from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import Layout
from meshwright.planner.emission.emission import Emission, write_emission
from meshwright.planner.emission.emitters import EMITTERS, Emitter
from meshwright.planner.emission.launch.files import launch_files
from meshwright.planner.emission.launch.nodes import nodes_of
from meshwright.planner.emission.relaxation import cannot, relaxed
from meshwright.planner.emission.target import CONSUMERS, EmitTarget, emit_target
from meshwright.planner.plan_file import plan_yaml
from meshwright.planner.plan_schema import Plan
from meshwright.planner.replica_batches import require_equal_batches

__all__ = ["CONSUMERS", "Emission", "EmitTarget", "emit", "emit_target", "write_emission"]

PLAN_FILE = "plan.yaml"


def emit(plan: Plan, target: str | EmitTarget, *, relax: bool = False) -> Emission:
    """Give the files that run a plan on a launcher: the same plan gives the same bytes.

    With `relax`, what the target can't express is left out: the nearest plan that it can is emitted, and what that
    costs is said.

    Raises InputError where the target is unknown, or can't express something of the plan, and with `relax` Infeasible
    where nothing without it fits in memory.
    """
    known = emit_target(target)
    require_equal_batches(plan, what=CONSUMERS[known].name)
    emitter = EMITTERS[known]
    run = _nearest(plan, known, emitter) if relax and any(emitter.obstacles(plan)) else plan
    _require_expressible(run, known, emitter)
    files = {**emitter.files(run), **launch_files(run, known, emitter.program(run)), PLAN_FILE: plan_yaml(run)}
    return Emission(
        target=known,
        files=files,
        plan=run,
        relaxed=_changes(plan.layout.layout(), run.layout.layout()),
        slower_by=run.predicted.step_time_s / plan.predicted.step_time_s - 1,
    )


def _nearest(plan: Plan, target: EmitTarget, emitter: Emitter) -> Plan:
    searched_as = CONSUMERS[target].searched_as
    planned = "" if searched_as is None else f", or plan for it: `meshwright plan --target {searched_as}`"
    hint = f"use more devices{planned}"
    return relaxed(plan, emitter.obstacles, name=CONSUMERS[target].name, hint=hint)


# The targets of `meshwright offload` whose settings a launcher reads.
OFFLOADED: Mapping[EmitTarget, tuple[str, ...]] = {
    EmitTarget.DEEPSPEED: ("deepspeed", "deep-optimizer-states"),
    EmitTarget.MEGATRON: ("megatron",),
    EmitTarget.TORCH: ("torch",),
}


def _require_offloaded(plan: Plan, target: EmitTarget) -> None:
    """Raise InputError where what a plan offloads isn't what the launcher can be told."""
    if plan.offload is None or plan.offload.target in OFFLOADED.get(target, ()):
        return
    told = OFFLOADED.get(target, ())
    raise InputError(
        f"{CONSUMERS[target].name} can't be told what was decided for {plan.offload.target}",
        path="offload.target",
        hint=f"decide again with `meshwright offload --plan FILE --target {told[0]}`"
        if told
        else f"emit it for one of {', '.join(map(str, OFFLOADED))}",
    )


def _require_expressible(plan: Plan, target: EmitTarget, emitter: Emitter) -> None:
    _require_offloaded(plan, target)
    name, searched_as = CONSUMERS[target].name, CONSUMERS[target].searched_as
    planned = "" if searched_as is None else f", `meshwright plan --target {searched_as}` plans for it"
    # First what no layout does without, so that nobody is sent to --relax for it.
    for obstacle in sorted(emitter.obstacles(plan), key=lambda found: bool(found.instead)):
        possible = f"--relax emits the nearest plan that it can run{planned}" if obstacle.instead else ""
        raise cannot(obstacle, name=name, hint=possible)
    nodes = nodes_of(plan)
    if not nodes.whole:
        raise InputError(
            f"launchers start as many processes on each node, and {plan.mesh.devices} devices aren't whole nodes of "
            f"{nodes.devices}",
            path="mesh.devices",
        )


def _changes(asked: Layout, run: Layout) -> tuple[str, ...]:
    pairs = ((name, getattr(asked, name), getattr(run, name)) for name in Layout.__dataclass_fields__)
    return tuple(f"{name}: {before} -> {after}" for name, before, after in pairs if before != after)
