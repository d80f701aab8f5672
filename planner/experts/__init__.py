"""Expert placement: which device holds which expert, with or without replicas.

An MoE layer waits for its most loaded device, and pays for each token that leaves its device or node. Given measured
routing, `place_experts` makes both small and says how far the answer is from the best possible. The formulas are beside
the functions that build them:

    balance        counts of replicas and devices for the least largest load         balance.py, cover.py
    lower_bound    what no placement's largest load is below                         lower_bound.py
    affinity       devices or nodes for which the most tokens stay                   homes.py, chain.py, pair_chain.py
    cross_bound    what fraction of tokens leaves at least                           traffic_bound.py, correlation.py
    two levels     nodes for traffic, then devices within them for balance           two_levels.py
    dispatch       what an engine's choice among replicas makes of loads and traffic dispatch.py
    movement       names of devices, and exchanges, for which few weights move       labels.py, repair.py
    checker        is it a placement, asked of every answer                          checker.py
"""

from meshwright.planner.experts.place import place_experts
from meshwright.planner.experts.placement import Dispatch, Objective, Placement, Status
from meshwright.planner.experts.routed_model import routed_model
from meshwright.planner.experts.routing import Routing, routing_of

__all__ = ["Dispatch", "Objective", "Placement", "Routing", "Status", "place_experts", "routed_model", "routing_of"]
