"""What expert ranks exchange: tokens to their experts and back, one rank's collectives in a step.

A mixture hands each token's row to the ranks of its experts, and what those give back again; a backward pass does the
same with gradients, and a layer that is computed again does the forward pass's exchanges again.
"""

from collections.abc import Iterator

from meshwright.costmodels.layout import Recompute
from meshwright.costmodels.transformer import Experts
from meshwright.planner.ledger.routing import rows_by_expert
from meshwright.planner.ledger.transfers import Kind, Transfer
from meshwright.planner.ledger.workload import Workload
from meshwright.planner.ranks import RankPlan


def expert_traffic(workload: Workload, rank: RankPlan) -> Iterator[Transfer]:
    """Give what a rank exchanges over its expert group."""
    if workload.layout.expert_parallel == 1:
        return
    row_bytes = workload.model.hidden * workload.element_bytes
    for chunk in workload.chunks(rank.stage):
        for index, recompute in workload.layers_of(chunk):
            experts = workload.model.layers[index].mlp
            if isinstance(experts, Experts):
                passes = (2 if recompute is Recompute.FULL else 1) + 1
                count = passes * workload.micro_batches
                payload_bytes = count * row_bytes * sum(rows_out_and_in(workload, experts, rank))
                yield Transfer(
                    kind=Kind.ALL_TO_ALL, ranks=rank.groups["expert"], count=2 * count, payload_bytes=payload_bytes
                )


def rows_out_and_in(workload: Workload, experts: Experts, rank: RankPlan) -> tuple[int, int]:
    """Give how many rows of a micro-batch a rank hands out, and how many its own experts get."""
    own, each = rank.coordinates["expert"], experts.experts // workload.layout.expert_parallel
    out = sum(rows_by_expert(workload, experts, rank.rank))
    members = (rows_by_expert(workload, experts, member) for member in rank.groups["expert"])
    return out, sum(sum(rows[own * each : (own + 1) * each]) for rows in members)
