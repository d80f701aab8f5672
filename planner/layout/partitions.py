"""The shards of each way of ZeRO-3 to partition a state, as columns.

With `all` = data x context parallelism, and of the ranks that hold the same parameters

    node = those within a node and card = those within the innermost tier, a divisor of all

                     zero_shard    gradient_shard    parameter_shard    backward_shard
    uniform          all           all               all                all
    hybrid           node          node              node               node
    secondary        all           all               all                node
    hierarchical     all           node              card               card
"""

import numpy as np

from meshwright.catalog.stack_entry import Partition
from meshwright.costmodels.layout import BoolArray, IntArray
from meshwright.hardware.cluster import Cluster
from meshwright.planner.layout.rules import Columns

PARTITIONS = tuple(Partition)


def node_shard(cluster: Cluster, columns: Columns) -> IntArray:
    """Give how many ranks of a node hold the same parameters, the greatest number that divides all that do."""
    within = np.maximum(cluster.domain_devices // columns["tensor_parallel"], 1)
    return np.asarray(np.gcd(within, columns["data_parallel"] * columns["context_parallel"]))


def is_partitioned(cluster: Cluster, columns: Columns) -> BoolArray:
    """Give where a node's ranks are several, and not all, of those that hold the same parameters."""
    node = node_shard(cluster, columns)
    return np.asarray((node > 1) & (node < columns["data_parallel"] * columns["context_parallel"]))


def shard_columns(cluster: Cluster, columns: Columns, partition: IntArray) -> dict[str, IntArray]:
    """Give the columns of shards where `partition` is an index of PARTITIONS."""
    every = columns["data_parallel"] * columns["context_parallel"]
    node = node_shard(cluster, columns)
    card = np.gcd(np.maximum(cluster.tiers[0].group // columns["tensor_parallel"], 1), node)
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
