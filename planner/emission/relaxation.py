"""The nearest plan that a target can run.

Each obstacle names changes of the layout that do without it. One change an obstacle is made, those changes may meet
obstacles of their own, and so on until none is left; a way that ends at an obstacle which no change does without is
given up. Of all layouts so reached, those that fit are predicted, and the fastest is taken; of equally fast ones the
first reached. Where none fits, the same that recompute all layers are tried.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable, Recompute
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner.emission.obstacle import Change, Obstacle
from meshwright.planner.figures import significant_bytes
from meshwright.planner.given_layout import plan_of_layout
from meshwright.planner.job_inputs import job_of
from meshwright.planner.plan_schema import LayoutSection, Plan
from meshwright.planner.planning import memory_limit_bytes

Obstacles = Callable[[Plan], Iterator[Obstacle]]
# Changes meet new obstacles a few times at most; more rounds than that would be going in circles.
ROUNDS = 8


def relaxed(plan: Plan, obstacles: Obstacles, *, name: str, hint: str = "") -> Plan:
    """Give the nearest plan without obstacles; `name` is the launcher's, `hint` what to do where nothing fits.

    Raises InputError where an obstacle can't be done without, Infeasible where no layout without them fits.
    """
    ends = tuple(_ends(plan, obstacles, rounds=ROUNDS))
    layouts = tuple(dict.fromkeys(end for end in ends if isinstance(end, Layout)))
    if not layouts:
        raise cannot(next(end for end in ends if isinstance(end, Obstacle)), name=name)
    job = job_of(plan.inputs, devices=plan.mesh.devices)
    limit = memory_limit_bytes(plan.inputs)
    fitting = _fitting(job, layouts, limit=limit) or _fitting(job, _leaner(plan, layouts, obstacles), limit=limit)
    if not fitting:
        raise Infeasible(f"no layout that {name} can run instead fits in memory", hint=hint)
    times = predict_time(job, LayoutTable.of(fitting)).step_time_s
    return plan_of_layout(plan.inputs, fitting[int(times.argmin())])


def _ends(plan: Plan, obstacles: Obstacles, *, rounds: int) -> Iterator[Layout | Obstacle]:
    """Give what each way of changes ends at: a layout without obstacles, or one that can't be done without."""
    found = tuple(obstacles(plan))
    if not found:
        yield plan.layout.layout()
        return
    hard = next((obstacle for obstacle in found if not obstacle.instead or rounds == 0), None)
    if hard is not None:
        yield hard
        return
    for changes in product(*(obstacle.instead for obstacle in found)):
        layout = plan.layout.layout()
        for change in changes:
            layout = replace(layout, **change)
        yield from _ends(_laid_out(plan, layout), obstacles, rounds=rounds - 1)


def _laid_out(plan: Plan, layout: Layout) -> Plan:
    return plan.model_copy(update={"layout": LayoutSection.of(layout)})


def _leaner(plan: Plan, layouts: tuple[Layout, ...], obstacles: Obstacles) -> tuple[Layout, ...]:
    """Give the layouts with all layers recomputed, which takes the least memory, where the target can run them."""
    every: Change = {"recompute": Recompute.FULL, "recompute_layers": None, "recompute_split": ()}
    recomputed = dict.fromkeys(replace(layout, **every) for layout in layouts)
    return tuple(layout for layout in recomputed if not any(obstacles(_laid_out(plan, layout))))


def cannot(obstacle: Obstacle, *, name: str, hint: str = "") -> InputError:
    """Give the error that an obstacle is for the launcher of this name."""
    return InputError(f"{name} {obstacle.feature}", path=obstacle.path, hint=hint)


def _fitting(job: Job, layouts: tuple[Layout, ...], *, limit: int) -> tuple[Layout, ...]:
    if not layouts:
        return ()
    peaks = predict_memory(job, LayoutTable.of(layouts)).nvidia_smi_bytes
    return tuple(layout for layout, peak in zip(layouts, peaks, strict=True) if significant_bytes(peak) <= limit)
