"""How far apart in rank the members of a group are, by the order of the axes.

Ranks count through the axes of AxisOrder, first axis fastest, with T, C, D, P the tensor, context, data and pipeline
degrees:

                      replicas of a stage    stages
    tp-cp-dp-pp       T (with context)       T C D
    tp-cp-pp-dp       T C P                  T C
"""

import numpy as np

from meshwright.catalog.axis_order import AxisOrder
from meshwright.costmodels.layout import AXIS_ORDERS, BoolArray, IntArray, LayoutTable

DATA_OUTERMOST = AXIS_ORDERS.index(AxisOrder.DATA_OUTERMOST)


def pipeline_stride(layouts: LayoutTable) -> IntArray:
    """Give how far apart neighbouring stages are, [layouts]."""
    inside = layouts.tensor_parallel * layouts.context_parallel
    return np.where(_is_data_outermost(layouts), inside, inside * layouts.data_parallel)


def stages_inside(layouts: LayoutTable) -> IntArray:
    """Give how many stages lie between neighbouring replicas of one, itself among them, [layouts]."""
    return np.where(_is_data_outermost(layouts), layouts.pipeline_parallel, 1)


def _is_data_outermost(layouts: LayoutTable) -> BoolArray:
    return np.asarray(layouts.axis_order == DATA_OUTERMOST)
