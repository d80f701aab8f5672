"""Which device each rank of the new plan runs on: where most of what it needs is already.

Ranks are seated unit by unit. What a unit's ranks hold, but for replicas, is its role: the layers of their stages,
their tensor and expert ranks. A unit that is left keeps its role where the new plan has it too, in order; roles that
are then without a unit go to the units that are left over. On a network whose units are all alike, that is as good a
place.
"""

from collections import defaultdict, deque
from collections.abc import Hashable

import numpy as np

from meshwright.costmodels.layout import IntArray
from meshwright.planner.change.left import Left
from meshwright.planner.plan_schema import Plan
from meshwright.planner.ranks import mesh_axes

OF_EXPERTS = ("expert_tensor", "expert")


def seats(old: Plan, new: Plan, left: Left) -> IntArray:
    """Give the device of each rank of the new plan, by its number before the change."""
    unit = left.units.shape[1]
    idle: defaultdict[Hashable, deque[int]] = defaultdict(deque)
    before, wanted = _roles(old, unit), _roles(new, unit)
    for number, devices in enumerate(left.units):
        first = int(devices[0]) // unit
        idle[before[first] if first < len(before) else None].append(number)
    taken = [idle[role].popleft() if idle[role] else -1 for role in wanted]
    rest = deque(sorted(number for numbers in idle.values() for number in numbers))
    seated = [rest.popleft() if number < 0 else number for number in taken]
    return np.asarray(left.units[np.array(seated)].ravel()[: new.mesh.devices])


def _roles(plan: Plan, unit: int) -> list[Hashable]:
    """Give the role of each unit that a plan uses, the last one perhaps in part."""
    layout = plan.layout.layout()
    axes, everyone = mesh_axes(layout), np.arange(plan.mesh.devices)
    layers = [(stage.chunks, stage.embedding, stage.head) for stage in plan.stages]
    names = ["pipeline", "tensor", *(OF_EXPERTS if layout.expert_parallel > 1 else ())]
    places = np.stack([everyone // axes[name].stride % axes[name].size for name in names], axis=1)
    degrees = (layout.tensor_parallel, layout.expert_parallel, layout.expert_tensor_parallel)
    distinct, role = np.unique(places, axis=0, return_inverse=True)
    meaning = [(layers[int(place[0])], *map(int, place[1:])) for place in distinct]
    return [
        (degrees, tuple(meaning[number] for number in role[first : first + unit]))
        for first in range(0, len(everyone), unit)
    ]
