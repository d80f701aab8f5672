"""An offload plan as a plan: its layout, with what leaves the device."""

from typing import Any

from meshwright.planner.figures import significant, significant_bytes
from meshwright.planner.given_layout import plan_of_layout
from meshwright.planner.offload.offload_plan import OffloadPlan
from meshwright.planner.plan_schema import Inputs, OffloadMemory, OffloadSection, OptimizerShares, Plan


def plan_with_offload(inputs: Inputs, found: OffloadPlan) -> Plan:
    """Give the plan of an offload plan's layout, whose predictions are without it, with the section of it."""
    plan = plan_of_layout(inputs, found.layout, must_fit=False)
    return plan.model_copy(update={"offload": offload_section(found)})


def offload_section(found: OffloadPlan) -> OffloadSection:
    """Give the section of an offload plan."""
    memory = found.problem.memory
    return OffloadSection(
        target=str(found.target),
        step_time_s=significant(found.step_time_s),
        lower_bound_s=significant(found.lower_bound_s),
        breakdown_s={name: significant(seconds) for name, seconds in found.chosen.breakdown_s.items()},
        optimizer=OptimizerShares(**found.optimizer),
        activations=found.activations,
        parameters=found.parameters,
        streamed_shares=found.streamed_shares,
        memory_bytes=OffloadMemory(**found.memory_bytes),
        budget_bytes=significant_bytes(memory.shown_bytes(memory.limit)),
        settings=_plain(found.settings),
    )


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever settings hold
    """Give tuples as lists, as files have them."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
