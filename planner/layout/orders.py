"""Where the order in which ranks count through the axes is a choice, and what each order asks for.

Data can be outermost where that brings the stages of each replica within an instance of a tier, of g devices, that
they'd else reach beyond: tensor x pipeline divides g, and g < tensor x pipeline x data. Elsewhere stages reach as far
in either order, and replicas no further with the pipeline outermost, which is then the only order offered.

Context ranks would lie between the stages, so that the ranks that hold the same parameters have no single distance:
there is no such order with context parallelism. Nor has Megatron-Core, whose parallel_state.py asks that experts have
as many replicas as the rest has: expert x expert-tensor = tensor x context, which without experts is tensor alone.
"""

import numpy as np

from meshwright.catalog.axis_order import AxisOrder
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import AXIS_ORDERS, BoolArray
from meshwright.hardware.cluster import Cluster
from meshwright.planner.layout.rules import Columns, Rule

DATA_OUTERMOST = AXIS_ORDERS.index(AxisOrder.DATA_OUTERMOST)


def has_two_orders(cluster: Cluster, columns: Columns) -> BoolArray:
    """Give where data outermost brings stages nearer to one another, [layouts]; that is of the mesh alone."""
    replica = columns["tensor_parallel"] * columns["pipeline_parallel"]
    several = (columns["pipeline_parallel"] > 1) & (columns["context_parallel"] == 1)
    groups = np.array([tier.group for tier in cluster.tiers])[:, np.newaxis]
    nearer = ((groups % replica == 0) & (groups < replica * columns["data_parallel"])).any(axis=0)
    return np.asarray(several & nearer)


def is_data_outermost(columns: Columns) -> BoolArray:
    """Give where data is outermost, [layouts]."""
    return np.asarray(columns["axis_order"] == DATA_OUTERMOST)


def _stack_numbers_so(job: Job, columns: Columns) -> BoolArray:
    return np.asarray(np.isin(columns["axis_order"], [AXIS_ORDERS.index(order) for order in job.stack.axis_orders]))


def _experts_have_the_replicas_of_the_rest(job: Job, columns: Columns) -> BoolArray:
    ranks = columns["expert_parallel"] * columns["expert_tensor_parallel"]
    alike = ranks == columns["tensor_parallel"]
    return np.asarray(~is_data_outermost(columns) | alike | (not job.model.has_experts))


ORDER_RULES = (
    Rule(reason="the training software does not number ranks in that order", keeps=_stack_numbers_so),
    Rule(
        reason="with data parallelism outermost, expert x expert-tensor parallelism isn't tensor parallelism",
        keeps=_experts_have_the_replicas_of_the_rest,
    ),
)
