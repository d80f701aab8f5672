"""Messages on the links between islands, which all devices of an island share.

A link passes B bytes in B / bandwidth + latency. Islands that hold copies of the same parameters (data parallelism
across islands) add up their gradients once a step, over the widest tree of links: what each island's own ranks have
reduced to shards crosses each link of the tree once, however many ranks there are. With N parameters, r and p bytes
of a gradient and of a parameter on the wire, of a link that parts a share a of the islands from a share b = 1 - a,

    copies    gradients up the tree and sums down it, in the link's two directions      N r / bandwidth
    shards    each island owns the optimizer's states of an equal part of the parameters (ZeRO over the islands):
              gradients to their owner                                                  max(a, b) N r / bandwidth
              new parameters from it                                                    max(a, b) N p / bandwidth

and the slowest link counts. Pieces follow one another, so that each level of the tree adds its latency: twice, up and
down. Of this, all but one layer's part hides beside the last micro-batch's way back through the stages, which leaves
one stage's gradients after another complete, and of new parameters beside the first one's way forward, where the
software starts such messages beside compute (overlap.py). Trees: the sum in two directions at
once is that of Sanders, Speck, Traff (2009); sums inside each node first and one message for all across the slow
network are the hierarchical reductions of Holmes (arXiv 2312.03549, section 3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray
from meshwright.costmodels.overlap import exposed_s
from meshwright.costmodels.parameter_bytes import PARAMETER_BYTES, reduced_bytes
from meshwright.costmodels.parameters import total_parameters
from meshwright.hardware.islands import Link


class Across(StrEnum):
    """What islands that train the same parameters hold: copies of the optimizer's states, or a share of them each."""

    COPIES = "copies"
    SHARDS = "shards"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """The way between two parties, by number, over one link or several in a row."""

    between: tuple[int, int]
    bandwidth_bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What the parties send one another once a step: seconds of gradients, and of parameters behind the optimizer.

    sent_bytes: on all links together. fixed_s: what nothing hides.
    """

    gradients_s: float
    parameters_s: float
    sent_bytes: float
    fixed_s: float = 0.0


NOTHING = Exchange(gradients_s=0.0, parameters_s=0.0, sent_bytes=0.0)


def message_s(link: Link, sent_bytes: float) -> float:
    """Give the seconds of a message of so many bytes."""
    return sent_bytes / link.bandwidth_bytes_per_s + link.latency_s


def widest_tree(parties: int, edges: Sequence[Edge]) -> tuple[Edge, ...]:
    """Give the tree over all parties whose narrowest edge is widest (Kruskal); of equals the first in order.

    Empty where they aren't all joined, or are one.
    """
    part = list(range(parties))
    tree: list[Edge] = []
    for edge in sorted(edges, key=lambda each: (-each.bandwidth_bytes_per_s, each.between)):
        one, other = (part[number] for number in edge.between)
        if one != other:
            tree.append(edge)
            part = [one if each == other else each for each in part]
    return tuple(tree) if len(tree) == parties - 1 else ()


def exchange_of(
    job: Job, parties: int, tree: Sequence[Edge], across: Across, *, gradient_share: float = 1.0
) -> Exchange:
    """Give what parties that train the same parameters send over a tree of edges.

    Args:
        job: whose model and software it is.
        parties: how many.
        tree: the edges.
        across: what each party holds of the optimizer's states.
        gradient_share: bytes of gradients that are sent, over all of them; less than 1 where they are compressed.

    """
    count = total_parameters(job.model)
    gradients = count * reduced_bytes(job) * gradient_share
    parameters = count * float(PARAMETER_BYTES)
    latency_s = 2.0 * sum(edge.latency_s for edge in tree)
    rates = [edge.bandwidth_bytes_per_s for edge in tree]
    if across is Across.COPIES:
        seconds = max(gradients / rate for rate in rates) + latency_s
        return Exchange(gradients_s=seconds, parameters_s=0.0, sent_bytes=2.0 * gradients * len(tree))
    sides = [max(share, 1.0 - share) for share in _shares(parties, tree)]
    slowest = max(side / rate for side, rate in zip(sides, rates, strict=True))
    return Exchange(
        gradients_s=gradients * slowest + latency_s / 2.0,
        parameters_s=parameters * slowest + latency_s / 2.0,
        sent_bytes=(gradients + parameters) * len(tree),
    )


def _shares(parties: int, tree: Sequence[Edge]) -> list[float]:
    """Give the share of the parties on one side of each edge."""
    shares = []
    for edge in tree:
        side = {edge.between[0]}
        for _ in range(parties):
            others = [each for each in tree if each is not edge]
            side |= {number for each in others if side & set(each.between) for number in each.between}
        shares.append(len(side) / parties)
    return shares


def exposed_exchange_s(job: Job, exchange: Exchange, *, forward_s: FloatArray, backward_s: FloatArray) -> FloatArray:
    """Give by how much an exchange lengthens a step, [...], beside the passes of one micro-batch, [...].

    Args:
        job: whose software starts it beside compute, or doesn't.
        exchange: what is sent.
        forward_s: the first micro-batch's forward passes through all stages.
        backward_s: the last one's backward passes.

    """
    parts = float(len(job.model.layers))
    contention = job.cluster.device.calibration.contention
    total = np.full(np.shape(backward_s), exchange.fixed_s)
    for seconds, room_s, beside in (
        (exchange.gradients_s, backward_s, job.stack.overlap_gradients),
        (exchange.parameters_s, forward_s, job.stack.overlap_parameters),
    ):
        if seconds and beside:
            message = np.full(np.shape(room_s), seconds)
            room = room_s * (1.0 - 1.0 / parts)
            total = total + exposed_s(message, room, contention, tail_s=message / parts)
        else:
            total = total + seconds
    return np.asarray(total)


def joined_edges(groups: Sequence[Sequence[int]], links: Mapping[frozenset[int], Link]) -> tuple[Edge, ...]:
    """Give the widest way between each two groups of islands that have one.

    A group of several islands passes on what isn't of its island at the link, over its own links in order, so that the
    narrowest of those counts too.
    """
    inner = [[links[frozenset(pair)].bandwidth_bytes_per_s for pair in pairwise(own)] for own in groups]
    edges = []
    for first in range(len(groups)):
        for second in range(first + 1, len(groups)):
            ways = [
                links[frozenset((one, other))]
                for one in groups[first]
                for other in groups[second]
                if frozenset((one, other)) in links
            ]
            if ways:
                best = max(ways, key=lambda way: (way.bandwidth_bytes_per_s, -way.latency_s))
                rate = min([best.bandwidth_bytes_per_s, *inner[first], *inner[second]])
                edges.append(Edge(between=(first, second), bandwidth_bytes_per_s=rate, latency_s=best.latency_s))
    return tuple(edges)
