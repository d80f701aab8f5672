"""The shards of each way to partition a state, as columns.

With `all` = data x context parallelism, and of the ranks that hold the same parameters

    node = those within a node and card = those within the innermost tier, a divisor of all

                     zero_shard    gradient_shard    parameter_shard    backward_shard
    uniform          all           all               all                all
    hybrid           node          node              node               node
    secondary        all           all               all                node
    hierarchical     all           node              card               card

All are ways of ZeRO-3; the lower stages are uniform or hybrid.
"""

import numpy as np

from meshwright.catalog.stack_entry import Partition
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import BoolArray, IntArray
from meshwright.hardware.cluster import Cluster
from meshwright.planner.layout.orders import has_two_orders, is_data_outermost
from meshwright.planner.layout.rules import Columns, Rule

PARTITIONS = tuple(Partition)


def node_shard(cluster: Cluster, columns: Columns) -> IntArray:
    """Give how many ranks of a node hold the same parameters, the greatest number that divides all that do."""
    return _shared(cluster.domain_devices, columns, _apart(columns))


def is_partitioned(cluster: Cluster, columns: Columns) -> BoolArray:
    """Give where in some order a node has several, but not all, of the ranks that hold the same parameters."""
    near, far = columns["tensor_parallel"], columns["tensor_parallel"] * columns["pipeline_parallel"]
    nearer, farther = (_is_part(columns, _shared(cluster.domain_devices, columns, apart)) for apart in (near, far))
    return np.asarray(nearer | (farther & has_two_orders(cluster, columns)))


def _is_part(columns: Columns, shared: IntArray) -> BoolArray:
    return np.asarray((shared > 1) & (shared < columns["data_parallel"] * columns["context_parallel"]))


def _shared(devices: int, columns: Columns, apart: IntArray) -> IntArray:
    """Give how many ranks of so many devices hold the same parameters, where those are so far apart in rank."""
    every = columns["data_parallel"] * columns["context_parallel"]
    return np.asarray(np.gcd(np.maximum(devices // apart, 1), every))


def _apart(columns: Columns) -> IntArray:
    """Give how far apart in rank those that hold the same parameters are, [layouts]."""
    return columns["tensor_parallel"] * np.where(is_data_outermost(columns), columns["pipeline_parallel"], 1)


def _order_has_parts(job: Job, columns: Columns) -> BoolArray:
    uniform = columns["partition"] == PARTITIONS.index(Partition.UNIFORM)
    return np.asarray(uniform | _is_part(columns, node_shard(job.cluster, columns)))


def shard_columns(cluster: Cluster, columns: Columns, partition: IntArray) -> dict[str, IntArray]:
    """Give the columns of shards where `partition` is an index of PARTITIONS."""
    every = columns["data_parallel"] * columns["context_parallel"]
    node = node_shard(cluster, columns)
    card = np.gcd(_shared(cluster.tiers[0].group, columns, _apart(columns)), node)
    hybrid, secondary, hierarchical = (
        partition == PARTITIONS.index(kind) for kind in (Partition.HYBRID, Partition.SECONDARY, Partition.HIERARCHICAL)
    )
    zero_shard = np.where(hybrid, node, every)
    parameter_shard = np.where(hierarchical, card, zero_shard)
    return {
        "zero_shard": zero_shard,
        "gradient_shard": np.where(hierarchical, node, zero_shard),
        "parameter_shard": parameter_shard,
        "backward_shard": np.where(secondary, node, parameter_shard),
    }


def _experts_are_whole(job: Job, columns: Columns) -> BoolArray:
    """Megatron-Core cuts the replicas of experts into as many instances as those of all else."""
    of_instances = (columns["zero_stage"] == 1) & (columns["partition"] == PARTITIONS.index(Partition.HYBRID))
    ranks = node_shard(job.cluster, columns) * columns["tensor_parallel"]
    return np.asarray(~of_instances | (ranks % (columns["expert_parallel"] * columns["expert_tensor_parallel"]) == 0))


PARTITION_RULES = (
    Rule(reason="instances of the optimizer do not hold all experts each", keeps=_experts_are_whole),
    Rule(reason="in that order a node has all or one of those with the same parameters", keeps=_order_has_parts),
)
