"""The question of where experts go: what is asked for, checked, and what is there already."""

from dataclasses import dataclass

import numpy as np

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.catalog.names import match_name
from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.deadline import Deadline
from meshwright.planner.experts.placement import EMPTY, Dispatch, Objective, Placement
from meshwright.planner.experts.routing import Routing, require_homes

LOAD_CAP = 1.01
# Far beyond any machine.
MOST_SLOTS = 2**16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """Where experts are to go.

    slots: of all devices. load_cap: the most load of a device over the mean, None where any may be.
    """

    routing: Routing
    devices: int
    nodes: int
    slots: int
    objective: Objective
    load_cap: float | None
    dispatch: Dispatch
    deadline: Deadline

    @property
    def replicated(self) -> bool:
        """Whether there are more slots than the experts need."""
        return self.slots > fewest_slots(self.routing.experts, self.devices)

    @property
    def balanced(self) -> bool:
        """Whether the answer is the balanced placement, with other names at most; else only its load counts."""
        both = self.objective is Objective.BOTH and self.nodes == 1 and self.replicated
        return self.objective is Objective.BALANCE or both

    @property
    def level(self) -> int:
        """The groups whose traffic counts: nodes, or the devices of the only one."""
        return self.nodes if self.nodes > 1 else self.devices

    @property
    def most_load(self) -> FloatArray:
        """The most load of a device that the cap allows [layers], infinite where there is none."""
        cap = np.inf if self.load_cap is None else self.load_cap
        allowed: FloatArray = self.routing.loads.sum(axis=1) / self.devices * cap
        return allowed


def question_of(
    routing: Routing,
    *,
    devices: int,
    nodes: int,
    slots: int | None,
    objective: Objective | str | None,
    load_cap: float | None,
    dispatch: Dispatch,
    deadline: Deadline,
) -> Question:
    """Give the question of what a caller asks for. Raises InputError where that can't be."""
    for path, value in (("devices", devices), ("nodes", nodes), ("slots", slots)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer)):
            raise InputError(f"{value!r:.40} isn't a whole number", path=path)
    for path, value in (("devices", devices), ("nodes", nodes)):
        if value < 1:
            raise InputError(f"{value} isn't at least 1", path=path)
    if devices % nodes:
        raise InputError(f"{nodes} nodes don't divide {devices} devices", path="nodes")
    held = fewest_slots(routing.experts, devices) if slots is None else slots
    _require_slots(held, experts=routing.experts, devices=devices)
    if load_cap is not None and not 1 <= load_cap < np.inf:
        raise InputError(f"{load_cap:g} isn't at least 1, the mean", path="load_cap")
    require_homes(routing, devices)
    wanted = _wanted(objective, traffic=routing.tokens is not None or routing.transitions is not None)
    if wanted is Objective.BALANCE and load_cap is not None:
        raise InputError(
            "is what traffic is saved for, and balance saves none", path="load_cap", hint="leave it out, or take both"
        )
    return Question(
        routing=routing,
        devices=devices,
        nodes=nodes,
        slots=held,
        objective=wanted,
        load_cap=load_cap or (LOAD_CAP if wanted is Objective.BOTH else None),
        dispatch=dispatch,
        deadline=deadline,
    )


def _require_slots(slots: int, *, experts: int, devices: int) -> None:
    if slots < experts:
        raise InputError(f"{slots} are fewer than the {experts} experts", path="slots")
    if slots > MOST_SLOTS:
        raise InputError(f"{slots} are more than {MOST_SLOTS}", path="slots")
    if slots % devices:
        below = slots - slots % devices
        near = f"{below} or {below + devices}" if below >= experts else f"{below + devices}"
        raise InputError(f"{devices} devices don't divide {slots} slots", path="slots", hint=f"take {near}")


def _wanted(objective: Objective | str | None, *, traffic: bool) -> Objective:
    """Give what is asked for. traffic: whether it is known where tokens come from, which makes it both by default."""
    if not objective:
        return Objective.BOTH if traffic else Objective.BALANCE
    wanted = Objective(match_name(objective, Objective, kind="objective"))
    if wanted is not Objective.BALANCE and not traffic:
        raise InputError(
            f"{wanted} needs to know where tokens come from", path="objective", hint="give transitions or tokens"
        )
    return wanted


def require_room(layers: int, size: int, most_on_device: int) -> None:
    """Raise Infeasible where a device can't hold `size` experts of each layer."""
    if layers * size > most_on_device:
        raise Infeasible(
            f"{size} slots in each of {layers} layers are {layers * size} experts a device, and its memory holds "
            f"{most_on_device}",
            hint="take more devices or fewer redundant experts",
        )


def fewest_slots(experts: int, devices: int) -> int:
    """Give the fewest slots that hold all experts, as many on each device."""
    return -(-experts // devices) * devices


def experts_there(previous: object, question: Question) -> IntArray:
    """Give the experts [layers, devices, slots of a device] that are there, each once on a device.

    previous: a Placement, or experts [layers, slots]. Raises InputError where it is of other experts or devices.
    """
    placed = np.asarray(previous.placement if isinstance(previous, Placement) else previous)
    layers, devices = question.routing.layers, question.devices
    if placed.ndim != 2 or len(placed) != layers or placed.shape[1] % devices or placed.dtype.kind not in "iu":
        raise InputError(
            f"must be experts [layers, slots] of {layers} layers and {devices} devices, not of shape "
            f"{list(placed.shape)}",
            path="previous",
        )
    if placed.size and not (placed.min() >= EMPTY and placed.max() < question.routing.experts):
        raise InputError(f"holds experts that aren't of the {question.routing.experts}", path="previous")
    held = placed.astype(np.int64).reshape(layers, devices, -1)
    # Engines fill slots that nothing is for with second copies.
    again = np.tril(held[..., :, None] == held[..., None, :], k=-1).any(axis=3)
    return np.where(again, EMPTY, held)
