"""The order in which obstacles are told: what a target can't do with an axis comes before what hangs on the axes."""

from collections.abc import Callable, Iterator, Sequence

from meshwright.costmodels.layout import Layout
from meshwright.planner.emission.obstacle import Obstacle
from meshwright.planner.emission.rank_order import pipeline_outermost
from meshwright.planner.plan_schema import Plan

Check = Callable[[Plan, Layout], Iterator[Obstacle]]


def axes_first(plan: Plan, *, axes: Check, checks: Sequence[Check]) -> Iterator[Obstacle]:
    """Give the first obstacle of a plan's axes alone, as to do without one changes the others; else those of `checks`.

    The target numbers ranks with the pipeline outermost.
    """
    layout = plan.layout.layout()
    axis = next(axes(plan, layout), None)
    if axis is not None:
        yield axis
        return
    yield from pipeline_outermost(layout)
    for check in checks:
        yield from check(plan, layout)
