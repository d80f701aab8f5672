"""The best uniform split of a mixed cluster: what a planner does that takes all devices to be alike.

Either each island trains replicas on as many sequences a device, by the best layout of its own, or a pipeline passes
both with as many layers a stage, by the best degrees. Messages, and what hides them, are those of the mixed plan.
"""

import itertools

import numpy as np

from meshwright.costmodels.island_links import Across, exchange_of, joined_edges, widest_tree
from meshwright.planner.mixed.alone import alone
from meshwright.planner.mixed.chain_configs import configurations
from meshwright.planner.mixed.chain_cut import Known, best_chain_cut
from meshwright.planner.mixed.chain_members import members_of
from meshwright.planner.mixed.question import Mixed
from meshwright.planner.mixed.shapes import shapes_of

CUTS = 400


def even_replicas_s(asked: Mixed) -> float:
    """The best step where every device trains on as many sequences."""
    count = len(asked.jobs)
    tree = widest_tree(count, joined_edges([(island,) for island in range(count)], asked.islands.link_of))
    exchanges = [exchange_of(asked.jobs[0], count, tree, across) for across in Across]
    exchange = min(exchanges, key=lambda each: each.gradients_s + each.parameters_s)
    steps = []
    for job, limit in zip(asked.jobs, asked.memory_limits_bytes, strict=True):
        share = -(-asked.batch * job.cluster.devices // asked.islands.devices)
        found = alone(job, share=share, memory_limit_bytes=limit, limits=asked.limits, window=0.2, exchange=exchange)
        sizes = found.layouts.micro_batch
        busiest = -(-share // found.layouts.data_parallel)
        steps.append(min(found.laws.takes_s(row, int(busiest[row]), int(sizes[row])) for row in range(len(found.laws))))
    return max(steps)


def even_stages_s(asked: Mixed, below_s: float) -> float:
    """The best step below a time where every stage of a pipeline through all islands has as many layers."""
    best = below_s
    known: Known = {}
    links = asked.islands.link_of
    members = members_of(asked.jobs, asked.limits, asked.memory_limits_bytes)
    for shape in shapes_of(asked.islands):
        if len(shape) > 1 or len(shape[0]) < len(asked.jobs):
            continue
        (chain,) = shape
        crossed = [links[frozenset(pair)] for pair in itertools.pairwise(chain)]
        limits = [asked.memory_limits_bytes[island] for island in chain]
        own = [members[island] for island in chain]
        for found in configurations(own, crossed, share=float(asked.batch), below_s=below_s):
            bounds_s = found.bound_s(np.ceil(asked.batch / found.sequences))
            for row in np.argsort(bounds_s, kind="stable")[:CUTS]:
                if bounds_s[row] >= best:
                    break
                total = -(-asked.batch // int(found.sequences[row]))
                solved = best_chain_cut(
                    found,
                    int(row),
                    total=total,
                    memory_limits_bytes=limits,
                    below_s=best,
                    known=known,
                    even=True,
                )
                if solved.cut is not None:
                    best = solved.cut.step_time_s
    return best


def uniform_split_s(asked: Mixed) -> float:
    """The best step of both."""
    return even_stages_s(asked, even_replicas_s(asked))
