"""Over which ranks a unit's parameters are sharded, and which hold the same shard."""

from dataclasses import dataclass

from meshwright.planner.ledger.parameters import Unit
from meshwright.planner.ledger.workload import Workload
from meshwright.planner.ranks import RankPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSharding:
    """The shards of a unit on one rank.

    replicas: all ranks that hold the same parameters before sharding. ranks: those that share one copy, of which this
    rank is number `index`. copies: those that hold the same shard as it.
    divisor: by which sums of gradients over replicas are divided; every replica's loss is the mean of its own tokens.
    """

    replicas: tuple[int, ...]
    ranks: tuple[int, ...]
    copies: tuple[int, ...]
    index: int
    divisor: int

    @property
    def shards(self) -> int:
        """Ranks that share one copy; 1 where it isn't sharded."""
        return len(self.ranks)


def shards_of(workload: Workload, *, expert: bool) -> int:
    """Give over how many replicas dense parameters, or routed experts, are sharded.

    Experts have fewer replicas, further apart: they are sharded over those that lie within the same ranks.
    """
    layout = workload.layout
    if layout.zero_stage == 0 or layout.zero_shard == 1:
        return 1
    if not expert:
        return layout.zero_shard
    apart = layout.expert_parallel * layout.expert_tensor_parallel
    replicas = layout.tensor_parallel * layout.context_parallel * layout.data_parallel // apart
    return min(max(layout.zero_shard * layout.tensor_parallel // apart, 1), replicas)


def sharding_of(workload: Workload, unit: Unit, rank: RankPlan) -> UnitSharding:
    """Give the shards of a unit on a rank."""
    axis = "expert_data" if unit.expert else "data_context"
    replicas, position = rank.groups[axis], rank.coordinates[axis]
    shards = shards_of(workload, expert=unit.expert)
    first = position - position % shards
    return UnitSharding(
        replicas=replicas,
        ranks=replicas[first : first + shards],
        copies=replicas[position % shards :: shards],
        index=position % shards,
        divisor=workload.layout.data_parallel * workload.layout.context_parallel,
    )
