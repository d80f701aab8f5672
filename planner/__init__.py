"""Plans: find the best layout for training a model on a cluster, write it down, read it back, hold it against today."""

from typing import TYPE_CHECKING

from meshwright.planner.check import check_plan
from meshwright.planner.job_inputs import inputs_of
from meshwright.planner.plan_file import load_plan, write_plan
from meshwright.planner.plan_schema import Plan
from meshwright.planner.planning import TimedPlan, plan, plan_of
from meshwright.planner.ranks import RankPlan

if TYPE_CHECKING:
    from meshwright.planner.accuracy.estimate import estimate

__all__ = [
    "Plan",
    "RankPlan",
    "TimedPlan",
    "check_plan",
    "estimate",
    "inputs_of",
    "load_plan",
    "plan",
    "plan_of",
    "write_plan",
]


def __getattr__(name: str) -> object:
    """Import `estimate` where it is first asked for: the schema of its cases takes a tenth of the time of a launch."""
    if name == "estimate":
        from meshwright.planner.accuracy.estimate import estimate  # noqa: PLC0415 - that is the point

        return estimate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
