"""Place experts: balance, affinity, or both.

    balance             `balanced` on all devices, layer by layer
    traffic             `homes_of` with nodes as groups, then with the devices of each node as groups
    both, one node      without replicas `homes_of` with devices as groups under the load cap; with replicas `balanced`,
                        then devices named by where tokens come from
    both, nodes         `homes_of` with nodes as groups under half the excess that the load cap allows, then balanced
                        within nodes, then devices of a node named by where tokens come from

A cap that no placement keeps is raised to the least that one keeps where few experts are solved exactly, else to the
largest load of the balanced placement.
"""

from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.catalog.names import match_name
from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray
from meshwright.planner.experts.balance import TOLERANCE, Balanced
from meshwright.planner.experts.chain import least_largest, solvable
from meshwright.planner.experts.checker import require_sound
from meshwright.planner.experts.deadline import NEVER, Deadline
from meshwright.planner.experts.dispatch import Dispatched, dispatched
from meshwright.planner.experts.filling import filled_lightly
from meshwright.planner.experts.homes import Homes, Pull, homes_of
from meshwright.planner.experts.labels import moved, near_previous, near_their_tokens
from meshwright.planner.experts.output import even_loads
from meshwright.planner.experts.placement import EMPTY, EQUAL, Dispatch, Objective, Placement, Status
from meshwright.planner.experts.repair import repaired
from meshwright.planner.experts.routing import Routing, require_homes, routing_of
from meshwright.planner.experts.slots import by_group, copied, devices_in_nodes, slots_of
from meshwright.planner.experts.traffic_bound import cross_bound
from meshwright.planner.experts.two_levels import balanced_in_nodes, balanced_slots

LOAD_CAP = 1.01
NODE_SHARE = 0.5
# Far beyond any machine.
MOST_SLOTS = 2**16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Question:
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    by_device: IntArray
    method: str
    exact: bool = False


def place_experts(  # noqa: PLR0913 - what is known of routing, devices and engine
    loads: object,
    *,
    devices: int,
    nodes: int = 1,
    slots: int | None = None,
    transitions: object = None,
    tokens: object = None,
    objective: Objective | str | None = None,
    load_cap: float | None = None,
    dispatch: Dispatch | str = Dispatch.EQUAL_SPLIT,
    previous: object = None,
    most_on_device: int | None = None,
    time_limit_s: float | None = None,
) -> Placement:
    """Give the placement of experts on devices: the same arguments give the same one.

    loads: any weight of each expert [layers, experts], or a Routing, which then holds transitions and tokens.
    slots: of all devices, those beyond the experts for replicas; by default as few as devices divide.
    transitions: tokens from an expert of a layer to one of the next [layers - 1, experts, experts].
    tokens: tokens from home devices [layers, devices, experts].
    objective: balance; where transitions or tokens are given also traffic, and both, which is then the default.
    load_cap: the most load of a device over the mean; 1.01 for both, none for traffic.
    dispatch: the engine's choice among replicas, by which loads and traffic are counted.
    previous: the placement that is there, as this gives it or [layers, slots]; few weights are moved from it.
    most_on_device: how many experts of all layers together a device's memory holds.
    time_limit_s: when to stop improving on the first answer; what is found then depends on the machine, and `stopped`
    says that it may be less than without.

    Raises InputError where arguments can't be right, Infeasible where memory doesn't hold the slots, SolverFailed where
    the answer doesn't pass the independent check.
    """
    begun = perf_counter()
    if time_limit_s is not None and not time_limit_s > 0:
        raise InputError(f"{time_limit_s:g} s isn't above 0", path="time_limit_s")
    routing = loads if isinstance(loads, Routing) else routing_of(loads, transitions=transitions, tokens=tokens)
    question = _question(
        routing,
        devices=devices,
        nodes=nodes,
        slots=slots,
        objective=objective,
        load_cap=load_cap,
        dispatch=Dispatch(match_name(dispatch, Dispatch, kind="dispatch")),
        deadline=NEVER if time_limit_s is None else Deadline(at=begun + time_limit_s),
    )
    if most_on_device is not None:
        require_room(routing.layers, question.slots // devices, most_on_device)
    before = None if previous is None else _previous(previous, question)
    balance = balanced_slots(
        routing.loads,
        slots=question.slots,
        devices=devices,
        deadline=question.deadline,
        thorough=question.balanced,
    )
    balance = _under_asked(question, balance)
    found = _FINDERS[question.objective](question, balance)
    by_device = found.by_device
    if before is not None and question.objective is Objective.BALANCE:
        by_device = _near_balance(question, balance, before)
    elif before is not None and routing.tokens is None:
        by_device = near_previous(by_device, before, nodes=nodes, experts=routing.experts, alike=True)
    require_sound(
        by_device.reshape(routing.layers, -1).tolist(),
        experts=routing.experts,
        devices=devices,
        slots=question.slots,
        most_on_device=most_on_device,
    )
    answer = _answer(question, replace(found, by_device=by_device), balance.bound)
    return replace(
        answer,
        moved=None if before is None else moved(by_device, before, routing.experts),
        seconds=perf_counter() - begun,
    )


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


def _question(
    routing: Routing,
    *,
    devices: int,
    nodes: int,
    slots: int | None,
    objective: Objective | str | None,
    load_cap: float | None,
    dispatch: Dispatch,
    deadline: Deadline,
) -> _Question:
    for path, value in (("devices", devices), ("nodes", nodes), ("slots", slots)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer)):
            raise InputError(f"{value!r:.40} isn't a whole number", path=path)
    for path, value in (("devices", devices), ("nodes", nodes)):
        if value < 1:
            raise InputError(f"{value} isn't at least 1", path=path)
    if devices % nodes:
        raise InputError(f"{nodes} nodes don't divide {devices} devices", path="nodes")
    held = fewest_slots(routing.experts, devices) if slots is None else slots
    if held < routing.experts:
        raise InputError(f"{held} are fewer than the {routing.experts} experts", path="slots")
    if held > MOST_SLOTS:
        raise InputError(f"{held} are more than {MOST_SLOTS}", path="slots")
    if held % devices:
        below = held - held % devices
        near = f"{below} or {below + devices}" if below >= routing.experts else f"{below + devices}"
        raise InputError(f"{devices} devices don't divide {held} slots", path="slots", hint=f"take {near}")
    if load_cap is not None and not 1 <= load_cap < np.inf:
        raise InputError(f"{load_cap:g} isn't at least 1, the mean", path="load_cap")
    require_homes(routing, devices)
    traffic = routing.tokens is not None or routing.transitions is not None
    named = match_name(objective, Objective, kind="objective") if objective else None
    wanted = Objective(named) if named else Objective.BOTH if traffic else Objective.BALANCE
    if wanted is not Objective.BALANCE and not traffic:
        raise InputError(
            f"{wanted} needs to know where tokens come from", path="objective", hint="give transitions or tokens"
        )
    if wanted is Objective.BALANCE and load_cap is not None:
        raise InputError(
            "is what traffic is saved for, and balance saves none", path="load_cap", hint="leave it out, or take both"
        )
    return _Question(
        routing=routing,
        devices=devices,
        nodes=nodes,
        slots=held,
        objective=wanted,
        load_cap=load_cap or (LOAD_CAP if wanted is Objective.BOTH else None),
        dispatch=dispatch,
        deadline=deadline,
    )


def _previous(previous: object, question: _Question) -> IntArray:
    """Give the experts [layers, devices, slots of a device] that are there, each once on a device."""
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


def _balance(question: _Question, balance: Balanced) -> _Found:
    del question
    return _Found(by_device=balance.placed, method="greedy counts, heaviest first, exchanges of pairs")


def _near_balance(question: _Question, balance: Balanced, before: IntArray) -> IntArray:
    """Give what is there, layers where few exchanges make that as good, else the balanced placement named after it."""
    routing = question.routing
    placed = near_previous(
        balance.placed,
        before,
        nodes=question.nodes,
        experts=routing.experts,
        alike=routing.transitions is not None,
    )
    if before.shape == placed.shape:
        enough = np.maximum(balance.bound * (1 + TOLERANCE), balance.largest)
        again, largest = repaired(routing.loads, before, enough=enough, deadline=question.deadline)
        kept = largest <= enough
        placed[kept] = again[kept]
    return placed


def _traffic(question: _Question, balance: Balanced) -> _Found:
    homes = homes_of(_pull(question, balance, groups=question.level), deadline=question.deadline)
    if question.nodes == 1:
        return _at_home(question, homes, balance)
    if question.replicated:
        return _in_nodes(question, homes, balance)
    home = devices_in_nodes(
        question.routing, homes.home, devices=question.devices, nodes=question.nodes, deadline=question.deadline
    )
    # Of several devices a node only the nodes' traffic would be proven.
    exact = homes.exact and question.devices == question.nodes
    likewise = Homes(home=home, exact=exact, free=homes.free, method=f"nodes: {homes.method}; devices likewise")
    return _at_home(question, likewise, balance)


def _at_home(question: _Question, homes: Homes, balance: Balanced) -> _Found:
    """Give each expert in a slot of its device. Copies in slots left, and homes for more experts, aren't searched."""
    spare = question.slots > question.routing.experts
    # Copies may save crossings where tokens look for the nearest, and where the cap costs some.
    copies = spare and (question.dispatch is not Dispatch.EQUAL_SPLIT or not homes.free)
    by_device = _filled(question, homes.home)
    under = _under_cap(question, by_device, balance)
    # A cap that is missed may be kept by copies.
    kept = bool((under == by_device).all()) and not (spare and _over(question, under, _asked(question)).any())
    return _Found(
        by_device=under,
        method=homes.method,
        exact=homes.exact and not copies and not question.replicated and kept,
    )


def _both(question: _Question, balance: Balanced) -> _Found:
    if question.nodes > 1:
        return _in_nodes(
            question, homes_of(_pull(question, balance, groups=question.nodes), deadline=question.deadline), balance
        )
    if not question.replicated:
        homes = homes_of(_pull(question, balance, groups=question.devices), deadline=question.deadline)
        return _at_home(question, homes, balance)
    named = near_their_tokens(question.routing, balance.placed, nodes=1)
    return _Found(by_device=named, method="balanced; devices named by their tokens")


def _in_nodes(question: _Question, homes: Homes, balance: Balanced) -> _Found:
    routing, nodes = question.routing, question.nodes
    inside = balanced_in_nodes(
        routing.loads,
        homes.home,
        slots=question.slots,
        devices=question.devices,
        nodes=nodes,
        deadline=question.deadline,
    )
    named = near_their_tokens(routing, _under_cap(question, inside, balance), nodes=nodes)
    return _Found(by_device=named, method=f"nodes: {homes.method}; devices: balanced")


def _under_asked(question: _Question, balance: Balanced) -> Balanced:
    """Give a balanced placement, looked for as long as for balance in layers above a cap that copies may keep."""
    over = (balance.largest > _asked(question) * (1 + EQUAL)) & (balance.bound <= _asked(question))
    at = np.flatnonzero(over)
    if question.balanced or question.slots == question.routing.experts or not len(at):
        return balance
    again = balanced_slots(
        question.routing.loads[at], slots=question.slots, devices=question.devices, deadline=question.deadline
    )
    placed, largest, bound = balance.placed.copy(), balance.largest.copy(), balance.bound.copy()
    placed[at], largest[at], bound[at] = again.placed, again.largest, np.maximum(bound[at], again.bound)
    return Balanced(placed=placed, largest=largest, bound=bound)


def _asked(question: _Question) -> FloatArray:
    """Give the most load of a device that the cap allows [layers], infinite where there is none."""
    cap = np.inf if question.load_cap is None else question.load_cap
    asked: FloatArray = question.routing.loads.sum(axis=1) / question.devices * cap
    return asked


def _over(question: _Question, placed: IntArray, cap: FloatArray) -> BoolArray:
    """Give the layers with a device above the cap."""
    routing = Routing(loads=question.routing.loads)
    sent = dispatched(routing, placed, nodes=question.nodes, rule=Dispatch.EQUAL_SPLIT)
    over: BoolArray = sent.loads.max(axis=1) > cap * (1 + EQUAL)
    return over


def _under_cap(question: _Question, inside: IntArray, balance: Balanced) -> IntArray:
    """Give the balanced placement to layers whose nodes have too few experts to be balanced under the load cap."""
    over = _over(question, inside, np.maximum(_asked(question), balance.largest))
    out = inside.copy()
    if over.any():
        out[over] = near_their_tokens(question.routing, balance.placed, nodes=1)[over]
    return out


_FINDERS = {Objective.BALANCE: _balance, Objective.TRAFFIC: _traffic, Objective.BOTH: _both}


def _pull(question: _Question, balance: Balanced, *, groups: int) -> Pull:
    """Give what `homes_of` needs, with the cap of a group of devices."""
    routing, per_group = question.routing, question.devices // groups
    cap = asked = np.full(routing.layers, np.inf)
    if question.load_cap is not None:
        mean = routing.loads.sum(axis=1) / question.devices
        # Devices of a node aren't loaded alike, so that a node may use half of what its devices may exceed the mean by.
        allowed = question.load_cap if per_group == 1 else 1 + (question.load_cap - 1) * NODE_SHARE
        asked = mean * allowed * per_group
        cap = np.maximum(asked, balance.largest) if per_group == 1 else asked
    return Pull(
        transitions=routing.transitions if routing.tokens is None else None,
        tokens=None if routing.tokens is None else by_group(routing.tokens, groups),
        loads=routing.loads,
        cap=cap,
        asked=asked,
        groups=groups,
    )


def _filled(question: _Question, home: IntArray) -> IntArray:
    """Give experts by device of the device of each expert; slots left hold copies where tokens look for the nearest."""
    placed = slots_of(home, devices=question.devices, size=question.slots // question.devices)
    if question.dispatch is Dispatch.EQUAL_SPLIT:
        return placed
    return copied(question.routing, placed)


def _answer(question: _Question, found: _Found, bound: FloatArray) -> Placement:
    """Give the placement with what the engine's dispatch makes of it."""
    routing = question.routing
    sent = dispatched(routing, found.by_device, nodes=question.nodes, rule=question.dispatch)
    mean = routing.loads.sum(axis=1) / question.devices
    largest = sent.loads.max(axis=1)
    if question.dispatch is Dispatch.LOCALITY_FIRST and question.slots > routing.experts:
        # Replicas share as tokens come, not alike: only the mean bounds them.
        bound = mean
    traffic = question.objective is not Objective.BALANCE
    if traffic and question.slots == routing.experts and solvable(routing.experts, question.devices):
        bound = np.maximum(bound, least_largest(routing.loads, groups=question.devices) * (1 - EQUAL))
    exact = found.exact if traffic else bool((largest <= bound * (1 + EQUAL)).all())
    placement = found.by_device.reshape(routing.layers, -1)
    filled, filled_over_mean = (
        _without_empty(question, placement, largest / mean) if (placement == EMPTY).any() else (None, None)
    )
    return Placement(
        placement=placement,
        devices=question.devices,
        nodes=question.nodes,
        objective=question.objective,
        dispatch=question.dispatch,
        max_over_mean=largest / mean,
        lower_bound=np.minimum(bound, largest) / mean,
        cross_device=sent.cross_device,
        cross_node=sent.cross_node if question.nodes > 1 else None,
        cross_bound=_cross_bound(question, sent, exact=exact) if traffic else None,
        filled=filled,
        filled_over_mean=filled_over_mean,
        method=found.method,
        stopped=question.deadline.struck,
        status=Status.OPTIMAL if exact else Status.FEASIBLE,
    )


def _without_empty(question: _Question, placement: IntArray, over_mean: FloatArray) -> tuple[IntArray, FloatArray]:
    """Give the placement for engines that leave no slot empty, and its largest loads over the mean [layers].

    over_mean: those with empty slots. Layers that get heavier have the placement found for all slots, if that is
    lighter and only the load counts.
    """
    weights = question.routing.loads
    filled = filled_lightly(weights, placement, devices=question.devices, nodes=question.nodes)
    over = _over_mean(question, filled)
    heavier = np.flatnonzero(over > over_mean * (1 + EQUAL))
    if len(heavier) and question.objective is Objective.BALANCE:
        whole = balanced_slots(
            weights[heavier],
            slots=question.slots,
            devices=question.devices,
            deadline=question.deadline,
            sparing=False,
        ).placed
        again = filled.copy()
        again[heavier] = filled_lightly(
            weights[heavier], whole.reshape(len(heavier), -1), devices=question.devices, nodes=question.nodes
        )
        reached = _over_mean(question, again)
        filled, over = np.where((reached < over)[:, None], again, filled), np.minimum(over, reached)
    # Rounding aside, what fills slots without a change has the figure without it.
    return filled, np.where(np.abs(over - over_mean) <= EQUAL * over_mean, over_mean, over)


def _over_mean(question: _Question, filled: IntArray) -> FloatArray:
    """Give the largest loads over the mean [layers] of a placement that may have experts twice on a device."""
    routing, devices = question.routing, question.devices
    if question.dispatch is Dispatch.EQUAL_SPLIT or (routing.tokens is None and routing.transitions is None):
        alike: FloatArray = even_loads(routing.loads, filled, devices=devices).max(axis=1)
        return alike
    by_device = filled.reshape(routing.layers, devices, -1)
    sent = dispatched(routing, by_device, nodes=question.nodes, rule=question.dispatch)
    over: FloatArray = sent.loads.max(axis=1) / routing.loads.sum(axis=1) * devices
    return over


def _cross_bound(question: _Question, sent: Dispatched, *, exact: bool) -> float | None:
    crossing = sent.cross_node if question.nodes > 1 else sent.cross_device
    if exact or crossing is None:
        return crossing
    return min(crossing, _least_crossing(question, sent))


def _least_crossing(question: _Question, sent: Dispatched) -> float:
    routing, level = question.routing, question.level
    most = np.full(routing.layers, np.inf)
    if question.load_cap is not None:
        # Where the cap isn't kept, what is as heavy as the answer is allowed too.
        mean = routing.loads.sum(axis=1) / question.devices
        most = np.maximum(mean * question.load_cap, sent.loads.max(axis=1)) * (question.devices // level)
    alike = question.dispatch is Dispatch.EQUAL_SPLIT or question.slots == routing.experts
    return cross_bound(routing, groups=level, size=question.slots // level, most=most, alike=alike)
