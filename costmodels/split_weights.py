"""What the optimizer's step works on where parameters are the upper halves of their master weights.

MindSpeed's `reuse-fp32-param` keeps an fp32 master weight as two halves, the 16-bit parameter and what is left of it,
apart from one another so that parameters lie side by side. The step weaves them together and unpicks them again:

    not sharded    parameter by parameter, each through a copy as large as it is in fp32
    sharded        in blocks of 4,096 x 4,096, of which three are there at once: the one that is filled, its
                   transpose, and that of the block before

Source: `reuse_distrib_optimizer.py` of MindSpeed. Experts of a rank are one parameter (grouped products).
"""

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import attention_products, mlp_products
from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable
from meshwright.costmodels.parameter_bytes import MASTER_BYTES, PARAMETER_BYTES, parameter_bytes
from meshwright.costmodels.sharding import dense_sharding, expert_sharding
from meshwright.costmodels.stage_table import StageTable
from meshwright.costmodels.state import local_vocabulary
from meshwright.costmodels.transformer import Experts

BLOCK_BYTES = MASTER_BYTES * 4096**2
BLOCKS = 3


def weaving_bytes(job: Job, layouts: LayoutTable, stages: StageTable) -> FloatArray:
    """Give what the step needs to make master weights whole and to halve them again, [layouts, stages]."""
    if parameter_bytes(job).master != PARAMETER_BYTES:
        return np.zeros(stages.index.shape)
    dense, experts = _largest_parameters(job, layouts, stages)
    return np.maximum(
        _copied_bytes(dense, dense_sharding(job, layouts).optimizer),
        _copied_bytes(experts, expert_sharding(job, layouts).optimizer),
    )


def _copied_bytes(largest: FloatArray, shards: IntArray) -> FloatArray:
    whole = MASTER_BYTES * largest
    return np.where(shards > 1, np.where(largest > 0, BLOCKS * BLOCK_BYTES, 0.0), whole)


def _largest_parameters(job: Job, layouts: LayoutTable, stages: StageTable) -> tuple[FloatArray, FloatArray]:
    """Count the values of the largest dense parameter and of the largest one of experts, [layouts, stages]."""
    word_table = (job.model.hidden * local_vocabulary(job, layouts))[:, np.newaxis]
    dense = np.where(stages.first | stages.last, word_table, 0.0)
    experts = np.zeros(stages.index.shape)
    for kind, layer in enumerate(job.model.layer_kinds):
        there = stages.layers[:, :, kind] > 0
        products = attention_products(job, layer.attention, layouts) + mlp_products(job, layer.mlp, layouts)
        for product in products:
            grouped = isinstance(layer.mlp, Experts) & (product.count > 1)
            size = product.count * product.columns * product.inner
            dense = np.maximum(dense, np.where(there, np.where(grouped, 0.0, size)[:, np.newaxis], 0.0))
            experts = np.maximum(experts, np.where(there, np.where(grouped, size, 0.0)[:, np.newaxis], 0.0))
    return dense, experts
