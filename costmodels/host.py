"""The host's time for launching one layer's kernels and collectives, which it does one by one.

Of a layer's 22 kernels forward, four are its products, which backward have two each: one for the gradient of what they
read, and one for that of their weights. So schedules that put off weight gradients launch 4 of a layer's 26 backward
kernels, and half of its experts', in a pass of their own. Together both passes take the host as long as one would.
"""

import numpy as np

from meshwright.catalog.precision import Precision
from meshwright.costmodels.attention import softmax_is_chained
from meshwright.costmodels.context_messages import context_launches
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.matmul import NARROW
from meshwright.costmodels.transformer import Experts, Layer

# Narrow formats launch a quantisation beside each product.
NARROW_LAUNCHES = 2

# A chain of kernels in the place of the fused softmax: six more than the 22 of a layer's forward pass.
CHAINED_LAUNCHES = 28 / 22

WEIGHT_LAUNCHES = 4 / 26
EXPERT_WEIGHT_LAUNCHES = 1 / 2


def launch_s(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    """Give the host's time for launching one layer's forward or backward pass: its kernels, and its collectives.

    Each local expert has products of its own to launch. Narrow formats quantise before each product, which doubles the
    launches.
    """
    collectives = np.where(layouts.tensor_parallel > 1, np.where(layouts.sequence_parallel == 1, 4, 2), 0)
    chained = softmax_is_chained(job, layer.attention, layouts)
    kernels_s = job.stack.layer_launch * np.where(chained, CHAINED_LAUNCHES, 1.0)
    if isinstance(layer.mlp, Experts):
        collectives = collectives + np.where(layouts.expert_parallel > 1, 2, 0)
    collectives = collectives + context_launches(layer.attention, layouts)
    kernels_s = kernels_s + _experts_launch_s(job, layer, layouts)
    return _launches(job.precision) * kernels_s + collectives * job.stack.collective_launch


def weight_launch_s(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    """Give the host's time for launching one layer's weight gradients, a part of its backward pass."""
    experts_s = EXPERT_WEIGHT_LAUNCHES * _experts_launch_s(job, layer, layouts)
    return _launches(job.precision) * (WEIGHT_LAUNCHES * job.stack.layer_launch + experts_s)


def _experts_launch_s(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    if not isinstance(layer.mlp, Experts):
        return np.zeros(len(layouts))
    return job.stack.expert_launch * layer.mlp.experts / layouts.expert_parallel


def _launches(precision: Precision) -> int:
    return NARROW_LAUNCHES if precision in NARROW else 1
