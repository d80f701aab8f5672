"""Plans: find the best layout for training a model on a cluster, write it down, read it back, hold it against today."""

from importlib import import_module
from typing import TYPE_CHECKING

from meshwright.planner.check import check_plan
from meshwright.planner.job_inputs import inputs_of
from meshwright.planner.plan_file import load_plan, write_plan
from meshwright.planner.plan_schema import Plan
from meshwright.planner.planning import TimedPlan, plan, plan_of
from meshwright.planner.ranks import RankPlan

if TYPE_CHECKING:
    from meshwright.planner.accuracy.estimate import estimate
    from meshwright.planner.emission import emit
    from meshwright.planner.experts import place_experts
    from meshwright.planner.offload import plan_offload
    from meshwright.planner.sequences import SequenceScatterer, scatter_sequences

__all__ = [
    "Plan",
    "RankPlan",
    "SequenceScatterer",
    "TimedPlan",
    "check_plan",
    "emit",
    "estimate",
    "inputs_of",
    "load_plan",
    "place_experts",
    "plan",
    "plan_of",
    "plan_offload",
    "scatter_sequences",
    "write_plan",
]


# Modules of what isn't part of making plans: a launch shouldn't wait for them.
_LATER = {
    "emit": "meshwright.planner.emission",
    "estimate": "meshwright.planner.accuracy.estimate",
    "place_experts": "meshwright.planner.experts",
    "plan_offload": "meshwright.planner.offload",
    "SequenceScatterer": "meshwright.planner.sequences",
    "scatter_sequences": "meshwright.planner.sequences",
}


def __getattr__(name: str) -> object:
    """Import what is asked for the first time."""
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
