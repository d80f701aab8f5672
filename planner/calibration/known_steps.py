"""Measured steps of the cases that were predicted, and the constants that those predictions depend on."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.lookup import entry_names, stack_named
from meshwright.catalog.overlay import Overlays
from meshwright.planner.accuracy.case_cluster import Machine, machine_named
from meshwright.planner.accuracy.estimate import Estimate
from meshwright.planner.calibration.case_evidence import MeasuredStep, measured_step
from meshwright.planner.calibration.constants import (
    Constant,
    device_constants,
    stack_constants,
    tier_constants,
)


def measured_steps(
    estimates: Iterable[Estimate], *, machine: Callable[[str], Machine] = machine_named, overlays: Overlays = ()
) -> Iterator[MeasuredStep]:
    """Prepare the predicted cases whose step time was measured; `machine` gives a device's by its name."""
    stacks = [stack_named(name, overlays) for name in entry_names("stacks")]
    known = cache(machine)
    for estimate in estimates:
        if estimate.predicted is not None:
            layout, place = estimate.predicted.layout, estimate.place
            step = measured_step(estimate.case, layout, place=place, machine=known, stacks=stacks)
            if step is not None:
                yield step


def constants_of_steps(steps: Sequence[MeasuredStep], *, by_family: bool) -> tuple[Constant, ...]:
    """Give the constants that steps may depend on: those of their devices, clusters and stacks.

    by_family: devices of a family share theirs; else each has its own.
    """
    devices: dict[str, dict[str, DeviceEntry]] = defaultdict(dict)
    for step in steps:
        devices[step.device.family if by_family else step.device.name][step.device.name] = step.device
    tiers = {(step.cluster.name, tier.name): tier for step in steps for tier in step.cluster.tiers}
    stacks = {step.stack.name: step.stack for step in steps}
    return (
        *(each for owner, members in devices.items() for each in device_constants(owner, list(members.values()))),
        *(each for (cluster, _), tier in tiers.items() for each in tier_constants(cluster, tier)),
        *(each for stack in stacks.values() for each in stack_constants(stack)),
    )
