"""What tensor ranks send one another in a layer, and what of it shows.

With sequence parallelism each of attention and MLP gathers its input and sums its output to shards; without, it sums
what all hold. The backward pass does the same the other way round: it gathers the gradients of outputs and sums those
of inputs (arXiv 2205.05198, section 4.2.2). Messages are 16 bits a value, but gathers are 8 where the software casts
what a product in 8 bits reads before it sends it.

Overlapped, they are cut into a chunk a tensor rank, and all but one chunk run beside the pass's products. A sum runs
beside the product that makes it. The gradient of an input is added up from those of several products, of queries, keys
and values, or of the gate and what it gates; software that pairs a sum with one product alone shows these (PyTorch:
torch/_inductor/fx_passes/micro_pipeline_tp.py).
"""

from dataclasses import dataclass

import numpy as np

from meshwright.catalog.precision import Precision
from meshwright.costmodels.collectives import Group, all_gather_s, all_reduce_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import ACTIVATION_BYTES, expert_rows, tokens_of
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.overlap import exposed_s
from meshwright.costmodels.transformer import Experts, Layer

NARROW_BYTES = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorMessages:
    """Seconds of the messages of one pass alone, [layouts]: what is gathered, and what is summed."""

    gathered_s: FloatArray
    summed_s: FloatArray

    @property
    def total_s(self) -> FloatArray:
        """Seconds of both."""
        return self.gathered_s + self.summed_s

    def share(self, part_s: FloatArray) -> FloatArray:
        """Give which share of all messages some of them are, [layouts]; 0 where there are none."""
        return np.divide(part_s, self.total_s, out=np.zeros(np.shape(self.total_s)), where=self.total_s > 0)


def tensor_messages(job: Job, layer: Layer, layouts: LayoutTable) -> TensorMessages:
    """Give the messages behind and before attention and the MLP, and those of the tensor ranks of experts.

    The all-gather that sequence parallelism repeats for the weight gradients runs beside the data gradients (arXiv
    2205.05198, section 4.2.2) and costs nothing here.
    """
    group = Group(size=layouts.tensor_parallel, stride=np.ones_like(layouts.tensor_parallel))
    values = job.model.hidden * tokens_of(job, layouts).computed
    sharded = layouts.sequence_parallel == 1
    narrow = job.stack.narrow_tensor_gathers and job.precision is Precision.FP8
    gathered_s = all_gather_s(job.cluster, group, (NARROW_BYTES if narrow else ACTIVATION_BYTES) * values)
    scattered_s = all_gather_s(job.cluster, group, ACTIVATION_BYTES * values)
    gathered_s = np.where(sharded, gathered_s, 0.0)
    summed_s = np.where(sharded, scattered_s, all_reduce_s(job.cluster, group, ACTIVATION_BYTES * values))
    if not isinstance(layer.mlp, Experts):
        return TensorMessages(gathered_s=2.0 * gathered_s, summed_s=2.0 * summed_s)
    experts_group = Group(size=layouts.expert_tensor_parallel, stride=np.ones_like(layouts.tensor_parallel))
    pairs_bytes = ACTIVATION_BYTES * job.model.hidden * expert_rows(job, layer.mlp, layouts)
    pairs_s = all_gather_s(job.cluster, experts_group, pairs_bytes)
    times = 2 if layer.mlp.shared_ffn_hidden else 1
    return TensorMessages(gathered_s=times * gathered_s + pairs_s, summed_s=times * summed_s + pairs_s)


def exposed_tensor_s(
    job: Job, layouts: LayoutTable, messages: TensorMessages, *, products_s: FloatArray, alone_s: FloatArray | float
) -> FloatArray:
    """Give what of a pass's messages shows, [layouts].

    Args:
        job: the job.
        layouts: the layouts.
        messages: those of the pass.
        products_s: the pass's products, without weight gradients that are put off.
        alone_s: which of the messages run beside nothing in any case, [layouts].

    """
    if not job.stack.overlap_tensor:
        return messages.total_s
    beside_s = messages.total_s - alone_s
    contention = job.cluster.device.calibration.contention
    return alone_s + exposed_s(beside_s, products_s, contention, tail_s=beside_s / layouts.tensor_parallel)


def sums_of_several_s(job: Job, layer: Layer, messages: TensorMessages) -> FloatArray:
    """Give the seconds of the backward pass's sums that several products add up to and nothing hides, [layouts]."""
    if job.stack.hides_tensor_sums or isinstance(layer.mlp, Experts):
        return np.zeros_like(messages.summed_s)
    return messages.summed_s * (1.0 if layer.mlp.gated else 0.5)
