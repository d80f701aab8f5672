"""The choice between time, memory and devices: the layouts that no other beats in one and equals in the rest."""

from collections.abc import Sequence
from dataclasses import dataclass

from meshwright.costmodels.layout import Layout
from meshwright.planner.device_numbers import round_numbers
from meshwright.planner.job_inputs import job_of
from meshwright.planner.layout.pareto import pareto_front
from meshwright.planner.plan_schema import Inputs
from meshwright.planner.planning import question_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One layout of the front, with its devices, step time and peak memory as nvidia-smi counts it."""

    layout: Layout
    devices: int
    step_time_s: float
    peak_bytes: float


def pareto_of(inputs: Inputs) -> tuple[Choice, ...]:
    """Give the whole front over the numbers of devices that the least price is searched over, most devices first.

    Of one number of devices the fastest comes first. Every layout that fits was evaluated, or its bounds show that it
    isn't on the front (layout/pareto.py).
    """
    found: list[Choice] = []
    for devices in reversed(round_numbers(inputs)):
        own = [one for one in _choices(inputs, devices) if not _is_beaten(one, found)]
        found = [*own, *found]
    return tuple(found)


def _choices(inputs: Inputs, devices: int) -> Sequence[Choice]:
    front = pareto_front(job_of(inputs, devices=devices), question_of(inputs))
    if front is None:
        return ()
    return [
        Choice(
            layout=front.layouts.row(row),
            devices=devices,
            step_time_s=float(front.step_time_s[row]),
            peak_bytes=float(front.peak_bytes[row]),
        )
        for row in range(len(front))
    ]


def _is_beaten(choice: Choice, fewer: Sequence[Choice]) -> bool:
    return any(one.step_time_s <= choice.step_time_s and one.peak_bytes <= choice.peak_bytes for one in fewer)
