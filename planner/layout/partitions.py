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

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.stack_entry import Partition
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import AXIS_ORDERS, BoolArray, IntArray
from meshwright.hardware.cluster import Cluster
from meshwright.planner.layout.rules import Columns, Rule

PARTITIONS = tuple(Partition)


def node_shard(cluster: Cluster, columns: Columns) -> IntArray:
    """Give how many ranks of a node hold the same parameters, the greatest number that divides all that do."""
    within = np.maximum(cluster.domain_devices // _apart(columns), 1)
    return np.asarray(np.gcd(within, columns["data_parallel"] * columns["context_parallel"]))


def is_partitioned(cluster: Cluster, columns: Columns) -> BoolArray:
    """Give where a node's ranks are several, and not all, of those that hold the same parameters."""
    node = node_shard(cluster, columns)
    return np.asarray((node > 1) & (node < columns["data_parallel"] * columns["context_parallel"]))


def _apart(columns: Columns) -> IntArray:
    """Give how far apart in rank those that hold the same parameters are, [layouts]."""
    outermost = columns["axis_order"] == AXIS_ORDERS.index(AxisOrder.DATA_OUTERMOST)
    return columns["tensor_parallel"] * np.where(outermost, columns["pipeline_parallel"], 1)


def shard_columns(cluster: Cluster, columns: Columns, partition: IntArray) -> dict[str, IntArray]:
    """Give the columns of shards where `partition` is an index of PARTITIONS."""
    every = columns["data_parallel"] * columns["context_parallel"]
    node = node_shard(cluster, columns)
    card = np.gcd(np.maximum(cluster.tiers[0].group // _apart(columns), 1), node)
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


PARTITION_RULES = (Rule(reason="instances of the optimizer do not hold all experts each", keeps=_experts_are_whole),)
