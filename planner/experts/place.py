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

from meshwright.catalog.errors import InputError
from meshwright.catalog.names import match_name
from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray
from meshwright.planner.experts.answer import answer_of
from meshwright.planner.experts.balance import TOLERANCE, Balanced
from meshwright.planner.experts.checker import require_sound
from meshwright.planner.experts.deadline import NEVER, Deadline
from meshwright.planner.experts.dispatch import dispatched
from meshwright.planner.experts.homes import Homes, Pull, homes_of
from meshwright.planner.experts.labels import moved, near_previous, near_their_tokens
from meshwright.planner.experts.placement import EQUAL, Dispatch, Objective, Placement
from meshwright.planner.experts.question import Question, experts_there, question_of, require_room
from meshwright.planner.experts.repair import repaired
from meshwright.planner.experts.routing import Routing, routing_of
from meshwright.planner.experts.slots import by_group, copied, devices_in_nodes, slots_of
from meshwright.planner.experts.two_levels import balanced_in_nodes, balanced_slots

NODE_SHARE = 0.5


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
    question = question_of(
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
    before = None if previous is None else experts_there(previous, question)
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
    answer = answer_of(question, by_device, method=found.method, exact=found.exact, bound=balance.bound)
    return replace(
        answer,
        moved=None if before is None else moved(by_device, before, routing.experts),
        seconds=perf_counter() - begun,
    )


def _balance(question: Question, balance: Balanced) -> _Found:
    del question
    return _Found(by_device=balance.placed, method="greedy counts, heaviest first, exchanges of pairs")


def _near_balance(question: Question, balance: Balanced, before: IntArray) -> IntArray:
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


def _traffic(question: Question, balance: Balanced) -> _Found:
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


def _at_home(question: Question, homes: Homes, balance: Balanced) -> _Found:
    """Give each expert in a slot of its device. Copies in slots left, and homes for more experts, aren't searched."""
    spare = question.slots > question.routing.experts
    # Copies may save crossings where tokens look for the nearest, and where the cap costs some.
    copies = spare and (question.dispatch is not Dispatch.EQUAL_SPLIT or not homes.free)
    by_device = _filled(question, homes.home)
    under = _under_cap(question, by_device, balance)
    # A cap that is missed may be kept by copies.
    kept = bool((under == by_device).all()) and not (spare and _over(question, under, question.most_load).any())
    return _Found(
        by_device=under,
        method=homes.method,
        exact=homes.exact and not copies and not question.replicated and kept,
    )


def _both(question: Question, balance: Balanced) -> _Found:
    if question.nodes > 1:
        return _in_nodes(
            question, homes_of(_pull(question, balance, groups=question.nodes), deadline=question.deadline), balance
        )
    if not question.replicated:
        homes = homes_of(_pull(question, balance, groups=question.devices), deadline=question.deadline)
        return _at_home(question, homes, balance)
    named = near_their_tokens(question.routing, balance.placed, nodes=1)
    return _Found(by_device=named, method="balanced; devices named by their tokens")


def _in_nodes(question: Question, homes: Homes, balance: Balanced) -> _Found:
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


def _under_asked(question: Question, balance: Balanced) -> Balanced:
    """Give a balanced placement, looked for as long as for balance in layers above a cap that copies may keep."""
    over = (balance.largest > question.most_load * (1 + EQUAL)) & (balance.bound <= question.most_load)
    at = np.flatnonzero(over)
    if question.balanced or question.slots == question.routing.experts or not len(at):
        return balance
    again = balanced_slots(
        question.routing.loads[at], slots=question.slots, devices=question.devices, deadline=question.deadline
    )
    placed, largest, bound = balance.placed.copy(), balance.largest.copy(), balance.bound.copy()
    placed[at], largest[at], bound[at] = again.placed, again.largest, np.maximum(bound[at], again.bound)
    return Balanced(placed=placed, largest=largest, bound=bound)


def _over(question: Question, placed: IntArray, cap: FloatArray) -> BoolArray:
    """Give the layers with a device above the cap."""
    routing = Routing(loads=question.routing.loads)
    sent = dispatched(routing, placed, nodes=question.nodes, rule=Dispatch.EQUAL_SPLIT)
    over: BoolArray = sent.loads.max(axis=1) > cap * (1 + EQUAL)
    return over


def _under_cap(question: Question, inside: IntArray, balance: Balanced) -> IntArray:
    """Give the balanced placement to layers whose nodes have too few experts to be balanced under the load cap."""
    over = _over(question, inside, np.maximum(question.most_load, balance.largest))
    out = inside.copy()
    if over.any():
        out[over] = near_their_tokens(question.routing, balance.placed, nodes=1)[over]
    return out


_FINDERS = {Objective.BALANCE: _balance, Objective.TRAFFIC: _traffic, Objective.BOTH: _both}


def _pull(question: Question, balance: Balanced, *, groups: int) -> Pull:
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


def _filled(question: Question, home: IntArray) -> IntArray:
    """Give experts by device of the device of each expert; slots left hold copies where tokens look for the nearest."""
    placed = slots_of(home, devices=question.devices, size=question.slots // question.devices)
    if question.dispatch is Dispatch.EQUAL_SPLIT:
        return placed
    return copied(question.routing, placed)
