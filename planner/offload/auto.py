"""A plan whose layout wouldn't fit, or wouldn't be as fast, without offloading: what `plan --offload auto` makes.

Layouts are searched as if devices had no limit, with everything kept and each ZeRO stage in turn. Those of the meshes
that are fastest so are split by the linear program, and their micro-batches, which cost nothing on such devices, halved
for as long as that lowers its bound; of the few with the lowest bounds the fastest rounded one is taken.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.costmodels.layout import Layout
from meshwright.planner.device_numbers import device_numbers
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout.limited_fields import Value
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
    """A layout with its bound, and the one that its micro-batch was halved of."""

    layout: Layout
    bound_s: float
    halved_of: Layout


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


def plan_offloaded(inputs: Inputs, *, deadline: float) -> Plan:
    """Make the fastest plan found of those that offload; after the deadline, a time.monotonic(), the first one found.

    Raises InputError as require_offloadable does, MissingData, and Infeasible where none fits.
    """
    require_offloadable(inputs)
    bounded = _lowest(inputs, deadline)
    if not bounded:
        raise Infeasible(
            "nothing fits, even with all that can leave the devices on their hosts",
            hint="more devices share more; `meshwright offload` says of a layout how much memory would do",
        )
    found = min(_solved(inputs, bounded, deadline), key=lambda one: one.step_time_s)
    return plan_with_offload(inputs, found)


def _solved(inputs: Inputs, bounded: list[_Bounded], deadline: float) -> Iterator[OffloadPlan]:
    """Split each layout, for a target with either micro-batch, since the bounds are of what is free of targets.

    Raises Infeasible where the target can express no split of any.
    """
    target = OffloadTarget.FREE if inputs.job.target is None else TARGETS[inputs.job.target]
    given = () if target is OffloadTarget.FREE else (one.halved_of for one in bounded)
    error: Infeasible | None = None
    found = False
    for layout in dict.fromkeys((*(one.layout for one in bounded), *given)):
        if found and monotonic() > deadline:
            return
        try:
            yield _split(inputs, layout, target, improve=monotonic() <= deadline)
            found = True
        except Infeasible as failure:
            error = failure
    if not found and error is not None:
        raise error


def _split(inputs: Inputs, layout: Layout, target: OffloadTarget, *, improve: bool) -> OffloadPlan:
    """Split a layout, with the largest of its micro-batch and halves of it that the target can express a split of."""
    while True:
        try:
            return offload_of(inputs, layout, target=target, improve=improve)
        except Infeasible:
            smaller = _halved(inputs, layout)
            if smaller is None:
                raise
            layout = smaller


def _lowest(inputs: Inputs, deadline: float) -> list[_Bounded]:
    """Give the layouts with the lowest bounds of their linear programs, where something fits."""
    bounded = sorted(_some_bounded(inputs, tuple(_layouts(inputs, deadline)), deadline), key=_bound_s)
    found: dict[Layout, _Bounded] = {}
    for one in bounded:
        lowered = _with_best_micro_batch(inputs, one)
        if math.isfinite(lowered.bound_s):
            found[lowered.layout] = lowered
        if len(found) == SOLVED or (found and monotonic() > deadline):
            break
    return sorted(found.values(), key=_bound_s)


def _some_bounded(inputs: Inputs, layouts: Sequence[Layout], deadline: float) -> Iterator[_Bounded]:
    """Give layouts with their bounds; after the deadline those alone that need least, until something fits."""
    for layout in dict.fromkeys(reversed(layouts)):
        one = _bounded(inputs, layout)
        yield one
        if math.isfinite(one.bound_s) and monotonic() > deadline:
            return


def _with_best_micro_batch(inputs: Inputs, one: _Bounded) -> _Bounded:
    """Halve the micro-batch until something fits, and for as long as that lowers the bound."""
    while (layout := _halved(inputs, one.layout)) is not None:
        smaller = _bounded(inputs, layout)
        if math.isfinite(one.bound_s) and smaller.bound_s >= one.bound_s:
            break
        one = replace(smaller, halved_of=one.halved_of)
    return one


def _halved(inputs: Inputs, layout: Layout) -> Layout | None:
    """Give a layout with half of its micro-batch, where that is within limits."""
    half, rest = divmod(layout.micro_batch, 2)
    allowed = not rest and inputs.job.limits.allows("micro_batch", value=half)
    return replace(layout, micro_batch=half) if allowed else None


def _bounded(inputs: Inputs, layout: Layout) -> _Bounded:
    """Give a layout with the bound of its linear program: infinite where nothing fits."""
    optimum = relaxed(offload_problem(inputs, layout))
    return _Bounded(layout=layout, halved_of=layout, bound_s=math.inf if optimum is None else optimum.step_time_s)


def _bound_s(one: _Bounded) -> float:
    return one.bound_s


def _layouts(inputs: Inputs, deadline: float) -> Iterator[Layout]:
    """Give the layouts that are fastest on devices of any memory, stage by stage of ZeRO; the last needs least.

    After the deadline each search stops at the first one that it finds.
    """
    jobs = tuple(job_of(inputs, devices=number) for number in device_numbers(inputs))
    asked = inputs.job.limits
    told = limits_under(inputs.job.target, asked)
    for stage in range(4):
        fixed: dict[str, Value] = {"recompute": "none", "zero_stage": stage}
        if not all(told.allows(name, value=value) for name, value in fixed.items()):
            continue
        limits = limits_under(inputs.job.target, asked.model_copy(update={"fix": {**asked.fix, **fixed}}))
        left_s = None if math.isinf(deadline) else max(deadline - monotonic(), 0.0)
        question = replace(
            question_of(inputs), memory_limit_bytes=NO_LIMIT, top=MESHES - 1, limits=limits, time_limit_s=left_s
        )
        try:
            result = search(jobs, question)
        except Infeasible:
            continue
        yield from (found.layout for found in (result.best, *result.alternatives))
