"""What joins islands, and chains of them: links, or the outermost tier of their group, and the widest tree of them.

Kruskal's tree is made anew here, with the order of `costmodels/island_links.py`: the widest edge first, of equals that
of the chains that come first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import NamedTuple

from meshwright.catalog.cluster_entry import Topology
from meshwright.planner.mixed.plan_schema import ChainSection, MixedPlan
from meshwright.planner.verification.mixed.islands import Part, parts_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """What joins two islands, or two chains."""

    bytes_per_s: float
    latency_s: float
    usd_per_gigabyte: float = 0.0


Joins = dict[frozenset[int], Join]
"""What joins each two islands, by their numbers."""


class Edge(NamedTuple):
    """Two chains, by number, and what joins them."""

    one: int
    other: int
    join: Join


def joins_of(plan: MixedPlan) -> Joins:
    """Give what joins each two islands that are joined: their groups' link, or of one group its outermost tier."""
    parts, named = parts_of(plan), {frozenset(link.between): link for link in plan.inputs.cluster.links}
    found: Joins = {}
    for one, other in combinations(range(len(parts)), 2):
        between = frozenset((parts[one].group.name, parts[other].group.name))
        if len(between) == 1:
            found[frozenset((one, other))] = _inside(parts[one], parts[other])
        elif between in named:
            link = named[between]
            found[frozenset((one, other))] = Join(
                bytes_per_s=link.bandwidth * link.left, latency_s=link.latency, usd_per_gigabyte=link.price or 0.0
            )
    return found


def _inside(one: Part, other: Part) -> Join:
    """Give what joins two parts of a group: what the weaker one's devices put into the tier that joins all."""
    cluster = one.group.cluster
    if isinstance(cluster, str):
        raise TypeError("groups of a plan are written out")
    tier = next(tier for tier in cluster.tiers if tier.group is None or tier.group >= cluster.devices)
    is_fabric = tier.topology is Topology.FABRIC
    rates = [part.devices * tier.bandwidth * (part.network if is_fabric else 1.0) for part in (one, other)]
    return Join(bytes_per_s=min(rates) * tier.efficiency / tier.oversubscription, latency_s=tier.latency)


def edges_of(chains: tuple[ChainSection, ...], joins: Joins) -> list[Edge]:
    """Give the widest join of each two chains that are joined, as wide as what passes on inside them lets it be."""
    edges = []
    for one, other in combinations(range(len(chains)), 2):
        between = [
            joins[frozenset((first, second))]
            for first in chains[one].islands
            for second in chains[other].islands
            if frozenset((first, second)) in joins
        ]
        inner = [joins[frozenset(pair)] for number in (one, other) for pair in pairwise(chains[number].islands)]
        if between:
            best = sorted(between, key=lambda join: (-join.bytes_per_s, join.latency_s))[0]
            rate = min(join.bytes_per_s for join in (best, *inner))
            edges.append(Edge(one, other, Join(bytes_per_s=rate, latency_s=best.latency_s)))
    return edges


def widest_tree(chains: tuple[ChainSection, ...], joins: Joins) -> list[Edge]:
    """Give the edges between chains that join all of them with the widest narrowest one, fewer where none do."""
    edges = edges_of(chains, joins)
    held = {number: {number} for number in range(len(chains))}
    tree = []
    for edge in sorted(edges, key=lambda edge: (-edge.join.bytes_per_s, edge.one, edge.other)):
        if edge.other not in held[edge.one]:
            joined = held[edge.one] | held[edge.other]
            held |= dict.fromkeys(joined, joined)
            tree.append(edge)
    return tree


def larger_side(tree: Sequence[Edge], without: Edge) -> int:
    """Give how many chains are on the larger side of an edge."""
    side = {without.one}
    for _ in tree:
        for edge in tree:
            if edge is not without and side & {edge.one, edge.other}:
                side |= {edge.one, edge.other}
    return max(len(side), len(tree) + 1 - len(side))
