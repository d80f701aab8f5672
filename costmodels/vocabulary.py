"""The two ends of a model: embedding on the first stage, head and loss on the last.

Under vocabulary parallelism (arXiv 2411.05288) each stage has its share of the vocabulary of both, and works on every
micro-batch's: it looks up what rows it has of the embedding, and makes its logits.
"""

import numpy as np

from meshwright.catalog.stack_entry import LossKernels
from meshwright.costmodels.collectives import Group, all_reduce_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import products_time_s
from meshwright.costmodels.layer_work import ACTIVATION_BYTES, tokens_of
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.matmul import Matmul
from meshwright.costmodels.parameter_bytes import PARAMETER_BYTES, gradient_bytes
from meshwright.costmodels.state import local_vocabulary

# Bytes moved for each logit, forward and backward. Fused: 16-bit logits are read twice (maximum, sum), and once more as
# softmax less target is written. PyTorch's: they are cast to fp32 (2 + 4), read for the maximum (4), made a softmax
# (4 + 4); backward the gradient is made in place (4 + 4) and cast back (4 + 2). Megatron's, an operator after the other
# (core/tensor_parallel/cross_entropy.py): the cast (2 + 4), the maximum (4), less it (4 + 4), exponentials (4 + 4),
# their sum (4), divided by it (4 + 4); backward as above.
LOSS_BYTES = {LossKernels.FUSED: (4, 4), LossKernels.SOFTMAX: (18, 14), LossKernels.OPERATORS: (38, 14)}


def _streaming_s(job: Job, moved_bytes: FloatArray) -> FloatArray:
    device = job.cluster.device
    return moved_bytes / (device.calibration.streaming * device.memory_bandwidth_bytes_per_s)


def embedding_s(job: Job, layouts: LayoutTable) -> tuple[FloatArray, FloatArray]:
    """Give the seconds of embedding one micro-batch, forward and backward: a gather of rows, and an all-reduce.

    Backward its rows are added to a table of zeros. No product makes that, so none adds it to the sum over
    micro-batches: where products do so for other gradients, a pass of its own does it here.
    """
    tokens = tokens_of(job, layouts).computed
    state_bytes = ACTIVATION_BYTES * job.model.hidden * tokens
    added_bytes = PARAMETER_BYTES + 2 * gradient_bytes(job) if job.stack.fused_accumulation else 0
    table_bytes = (PARAMETER_BYTES + added_bytes) * job.model.hidden * local_vocabulary(job, layouts)
    group = Group(size=layouts.tensor_parallel, stride=np.ones_like(layouts.tensor_parallel))
    return (
        _streaming_s(job, 3.0 * state_bytes) + all_reduce_s(job.cluster, group, state_bytes),
        _streaming_s(job, 4.0 * state_bytes + table_bytes),
    )


def head_product(job: Job, layouts: LayoutTable) -> Matmul:
    """Give the product of hidden states with a device's share of the vocabulary, which no recipe narrows."""
    ones = np.ones(len(layouts))
    return Matmul(
        rows=tokens_of(job, layouts).computed,
        columns=local_vocabulary(job, layouts),
        inner=ones * job.model.hidden,
        count=ones,
        wide=True,
    )


def head_s(job: Job, layouts: LayoutTable) -> tuple[FloatArray, FloatArray]:
    """Give the seconds of head and loss of one micro-batch, forward and backward.

    The head is a product with the vocabulary's shard; the loss goes over its fp32 logits: 16-bit logits written as
    fp32, maximum and sum of exponentials forward, softmax minus target backward. Multi-token prediction runs it once
    more a module, behind a projection of 2 hidden to hidden. Tensor parallelism all-reduces the gradient of the
    head's input.
    """
    tokens = tokens_of(job, layouts).computed
    vocabulary = local_vocabulary(job, layouts)
    ones = np.ones(len(layouts))
    forward, backward = products_time_s(job, (head_product(job, layouts),))
    group = Group(size=layouts.tensor_parallel, stride=np.ones_like(layouts.tensor_parallel))
    message_s = all_reduce_s(job.cluster, group, ACTIVATION_BYTES * job.model.hidden * tokens)
    loss_forward_bytes, loss_backward_bytes = LOSS_BYTES[job.stack.loss]
    forward_s = forward + _streaming_s(job, loss_forward_bytes * tokens * vocabulary)
    backward_s = backward + _streaming_s(job, loss_backward_bytes * tokens * vocabulary) + message_s
    predicted, width = job.model.mtp_layers, job.model.hidden / layouts.tensor_parallel
    projection = Matmul(rows=tokens, columns=width, inner=ones * 2.0 * job.model.hidden, count=ones)
    projected = products_time_s(job, (projection,))
    return (
        (1 + predicted) * forward_s + predicted * projected[0],
        (1 + predicted) * backward_s + predicted * projected[1],
    )
