"""The answer to where experts go: a placement with its loads, its traffic and the bounds of both."""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.experts.chain import least_largest, solvable
from meshwright.planner.experts.dispatch import Dispatched, dispatched
from meshwright.planner.experts.filling import filled_lightly
from meshwright.planner.experts.output import even_loads
from meshwright.planner.experts.placement import EMPTY, EQUAL, Dispatch, Objective, Placement, Status
from meshwright.planner.experts.question import Question
from meshwright.planner.experts.traffic_bound import cross_bound
from meshwright.planner.experts.two_levels import balanced_slots


def answer_of(question: Question, by_device: IntArray, *, method: str, exact: bool, bound: FloatArray) -> Placement:
    """Give the placement with what the engine's dispatch makes of it.

    by_device: experts [layers, devices, slots of a device]. exact: whether no other one keeps more tokens. bound: of
    the largest load of a device [layers].
    """
    routing = question.routing
    sent = dispatched(routing, by_device, nodes=question.nodes, rule=question.dispatch)
    mean = routing.loads.sum(axis=1) / question.devices
    largest = sent.loads.max(axis=1)
    if question.dispatch is Dispatch.LOCALITY_FIRST and question.slots > routing.experts:
        # Replicas share as tokens come, not alike: only the mean bounds them.
        bound = mean
    traffic = question.objective is not Objective.BALANCE
    if traffic and question.slots == routing.experts and solvable(routing.experts, question.devices):
        bound = np.maximum(bound, least_largest(routing.loads, groups=question.devices) * (1 - EQUAL))
    exact = exact if traffic else bool((largest <= bound * (1 + EQUAL)).all())
    placement = by_device.reshape(routing.layers, -1)
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
        method=method,
        stopped=question.deadline.struck,
        status=Status.OPTIMAL if exact else Status.FEASIBLE,
    )


def _without_empty(question: Question, placement: IntArray, over_mean: FloatArray) -> tuple[IntArray, FloatArray]:
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


def _over_mean(question: Question, filled: IntArray) -> FloatArray:
    """Give the largest loads over the mean [layers] of a placement that may have experts twice on a device."""
    routing, devices = question.routing, question.devices
    if question.dispatch is Dispatch.EQUAL_SPLIT or (routing.tokens is None and routing.transitions is None):
        alike: FloatArray = even_loads(routing.loads, filled, devices=devices).max(axis=1)
        return alike
    by_device = filled.reshape(routing.layers, devices, -1)
    sent = dispatched(routing, by_device, nodes=question.nodes, rule=question.dispatch)
    over: FloatArray = sent.loads.max(axis=1) / routing.loads.sum(axis=1) * devices
    return over


def _cross_bound(question: Question, sent: Dispatched, *, exact: bool) -> float | None:
    crossing = sent.cross_node if question.nodes > 1 else sent.cross_device
    if exact or crossing is None:
        return crossing
    return min(crossing, _least_crossing(question, sent))


def _least_crossing(question: Question, sent: Dispatched) -> float:
    routing, level = question.routing, question.level
    most = np.full(routing.layers, np.inf)
    if question.load_cap is not None:
        # Where the cap isn't kept, what is as heavy as the answer is allowed too.
        mean = routing.loads.sum(axis=1) / question.devices
        most = np.maximum(mean * question.load_cap, sent.loads.max(axis=1)) * (question.devices // level)
    alike = question.dispatch is Dispatch.EQUAL_SPLIT or question.slots == routing.experts
    return cross_bound(routing, groups=level, size=question.slots // level, most=most, alike=alike)
