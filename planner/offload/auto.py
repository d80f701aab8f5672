"""A plan whose layout wouldn't fit, or wouldn't be as fast, without offloading: what `plan --offload auto` makes.

Layouts are searched as if devices had no limit, with everything kept and each ZeRO stage in turn. Those of the meshes
that are fastest so are split by the linear program; of the few with the lowest bounds the fastest rounded one is taken.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from meshwright.catalog.document import validate
from meshwright.catalog.errors import Infeasible, InputError
from meshwright.costmodels.layout import Layout
from meshwright.planner.device_numbers import device_numbers
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.search import search
from meshwright.planner.offload.linear_program import relaxed
from meshwright.planner.offload.offload import offload_of, offload_problem
from meshwright.planner.offload.offload_plan import OffloadPlan
from meshwright.planner.offload.planned import plan_with_offload
from meshwright.planner.offload.target import OffloadTarget
from meshwright.planner.plan_schema import Inputs, Plan
from meshwright.planner.planning import question_of
from meshwright.planner.targets import Target, limits_under

# Beyond any device, and within the numbers of a plan.
NO_LIMIT = 10**17
MESHES, SOLVED = 5, 3
# What the launchers that plans are made for are told of it; others can't be told anything.
TARGETS: Mapping[Target, OffloadTarget] = {
    Target.MEGATRON_CORE: OffloadTarget.MEGATRON,
    Target.DEEPSPEED: OffloadTarget.DEEPSPEED,
    Target.FSDP2: OffloadTarget.TORCH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounded:
    layout: Layout
    bound_s: float


def require_offloadable(inputs: Inputs) -> None:
    """Raise InputError where plans of the objective, or for the launcher, don't offload."""
    if inputs.job.objective is not Objective.TIME:
        raise InputError(
            f"is for the objective time, not for {inputs.job.objective}", path="offload", hint="leave out --objective"
        )
    if inputs.job.target is not None and inputs.job.target not in TARGETS:
        raise InputError(
            f"{inputs.job.target} can't be told what is offloaded",
            path="offload",
            hint=f"plan for one of {', '.join(TARGETS)}, or without --target",
        )


def plan_offloaded(inputs: Inputs) -> Plan:
    """Make the fastest plan found of those that offload.

    Raises InputError as require_offloadable does, MissingData, and Infeasible where none fits.
    """
    require_offloadable(inputs)
    bounded = sorted(_bounded(inputs), key=lambda one: one.bound_s)[:SOLVED]
    if not bounded:
        raise Infeasible(
            "nothing fits, even with all that can leave the devices on their hosts",
            hint="more devices share more; `meshwright offload` says of a layout how much memory would do",
        )
    found = min(_solved(inputs, bounded), key=lambda one: one.step_time_s)
    return plan_with_offload(inputs, found)


def _solved(inputs: Inputs, bounded: list[_Bounded]) -> Iterator[OffloadPlan]:
    """Split each layout. Raises Infeasible where the target can express no split of any."""
    target = OffloadTarget.FREE if inputs.job.target is None else TARGETS[inputs.job.target]
    error: Infeasible | None = None
    found = False
    for one in bounded:
        try:
            yield offload_of(inputs, one.layout, target=target)
            found = True
        except Infeasible as failure:
            error = failure
    if not found and error is not None:
        raise error


def _bounded(inputs: Inputs) -> Iterator[_Bounded]:
    """Give layouts with the bounds of their linear programs, where something fits."""
    for layout in dict.fromkeys(_layouts(inputs)):
        optimum = relaxed(offload_problem(inputs, layout))
        if optimum is not None:
            yield _Bounded(layout=layout, bound_s=optimum.step_time_s)


def _layouts(inputs: Inputs) -> Iterator[Layout]:
    """Give the layouts that are fastest on devices of any memory, stage by stage of ZeRO."""
    jobs = tuple(job_of(inputs, devices=number) for number in device_numbers(inputs))
    asked = inputs.job.limits.model_dump()
    for stage in range(4):
        fixed = asked["fix"] | {"recompute": "none", "zero_stage": stage}
        if any(asked["fix"].get(name, value) != value for name, value in fixed.items()):
            continue
        limits = limits_under(inputs.job.target, validate(Limits, asked | {"fix": fixed}, file="", path="limits"))
        question = replace(question_of(inputs), memory_limit_bytes=NO_LIMIT, top=MESHES - 1, limits=limits)
        try:
            result = search(jobs, question)
        except Infeasible:
            continue
        yield from (found.layout for found in (result.best, *result.alternatives))
