"""The allowed ways to exchange what islands that train replicas have learned."""

from collections.abc import Sequence

from meshwright.costmodels.island_links import Edge
from meshwright.costmodels.job import Job
from meshwright.planner.mixed.ways.allowed import Allowed, Permission
from meshwright.planner.mixed.ways.compression import compressed
from meshwright.planner.mixed.ways.local_steps import co2, diloco, noloco
from meshwright.planner.mixed.ways.way import Way


def exchange_ways(
    job: Job, allowed: Sequence[Permission], *, parties: int, edges: Sequence[Edge], tree: Sequence[Edge], step_s: float
) -> tuple[Way, ...]:
    """Give the allowed ways of some parties.

    Args:
        job: whose model and software it is.
        allowed: what may be used.
        parties: islands or chains that train replicas.
        edges: the ways between them.
        tree: the widest tree of those.
        step_s: what a step takes at least.

    """
    found = []
    for each in allowed:
        if each.way is Allowed.DILOCO:
            found.append(diloco(job, tree, local_steps=each.number, step_s=step_s))
        elif each.way is Allowed.NOLOCO:
            found.append(noloco(job, edges, local_steps=each.number))
        elif each.way is Allowed.CO2:
            found.append(co2(job, parties, tree, local_steps=each.number, step_s=step_s))
        elif each.way is Allowed.COMPRESS:
            found.append(compressed(job, parties, tree, kept=each.number / 1000))
    return tuple(found)
