"""Selective recomputation that keeps the output of every other product: TorchTitan's, operator by operator.

It counts the products of a layer as its code runs them, queries, keys, values, output, gate, up and down (of latent
attention its own ones), and keeps what the first, the third and so on make, the attention core's output, and what
tensor ranks have summed to shards. All else is made again: the other products, all elementwise work, and what tensor
ranks gather. The last product isn't: nothing that was saved follows it. Of experts it is half.

Operator by operator it keeps an output, and repeats a product, that nobody reads. Code of a compiler doesn't: the
output of the last product isn't kept, and one whose sum was kept isn't repeated.

Of Llama 3.1 8B it keeps 23,552 values a token and layer beside the core's, compiled 19,456, where half of all outputs
are 21,504; reserved memory of TorchTitan on 8 and 128 devices is within 3 % of it (catalog/measurements).
"""

from collections.abc import Iterator

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import attention_products, local_kv_heads, mlp_products, product, tokens_of
from meshwright.costmodels.layout import BoolArray, FloatArray, LayoutTable
from meshwright.costmodels.matmul import Matmul
from meshwright.costmodels.tensor_messages import TensorMessages
from meshwright.costmodels.transformer import Attention, Layer, Mlp


def repeated_flop_share(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    """Give the share of a layer's products, by operations, that is repeated, [layouts]."""
    attention, mlp = attention_products(job, layer.attention, layouts), mlp_products(job, layer.mlp, layouts)
    repeated = np.zeros(len(layouts))
    if not isinstance(layer.mlp, Mlp):
        repeated = repeated + 0.5 * np.asarray(sum(each.flop for each in mlp))
    for kept, each, unread in _in_order(job, layer, layouts):
        if not kept:
            repeated = repeated + np.where(unread, 0.0, each.flop)
    return np.asarray(repeated / sum(each.flop for each in attention + mlp))


def kept_outputs(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    """Count the values that kept products of attention and of a dense MLP make, and kept sums of them, [layouts]."""
    values = np.zeros(len(layouts))
    for kept, each, unread in _in_order(job, layer, layouts):
        if kept:
            values = values + np.where(unread, 0.0, each.rows * each.columns)
    sums = np.where(_sums_to_shards(layouts), 1 if job.stack.compiled else 2, 0)
    return values + sums * job.model.hidden * tokens_of(job, layouts).held


def repeated_message_s(layouts: LayoutTable, sent: TensorMessages) -> FloatArray:
    """Give the seconds of tensor messages that are sent again, [layouts]: gathers, or else attention's sum."""
    return np.where(layouts.sequence_parallel == 1, sent.gathered_s, 0.5 * sent.summed_s)


def _in_order(job: Job, layer: Layer, layouts: LayoutTable) -> Iterator[tuple[bool, Matmul, BoolArray]]:
    """Give each product, whether its output is kept, and where nobody reads that, [layouts]."""
    attention = _of_attention(job, layer.attention, layouts)
    products = attention + (_of_mlp(job, layer.mlp, layouts) if isinstance(layer.mlp, Mlp) else ())
    for place, each in enumerate(products):
        kept = place % 2 == 0
        unread = np.zeros(len(layouts), dtype=bool)
        if each is products[-1] and isinstance(layer.mlp, Mlp):
            unread = unread | job.stack.compiled | (not kept)
        if each is attention[-1] and job.stack.compiled:
            unread = unread | _sums_to_shards(layouts)
        yield kept, each, unread


def _sums_to_shards(layouts: LayoutTable) -> BoolArray:
    return np.asarray((layouts.sequence_parallel == 1) & (layouts.tensor_parallel > 1))


def _of_attention(job: Job, attention: Attention, layouts: LayoutTable) -> tuple[Matmul, ...]:
    together = attention_products(job, attention, layouts)
    if attention.latent is not None or attention.linear is not None:
        return together
    tokens, heads = tokens_of(job, layouts).computed, attention.heads / layouts.tensor_parallel
    kv_heads = local_kv_heads(attention, layouts)
    widths = (heads * attention.head_dim, kv_heads * attention.head_dim, kv_heads * attention.value_head_dim)
    return (*(product(tokens, width, job.model.hidden) for width in widths), together[-1])


def _of_mlp(job: Job, mlp: Mlp, layouts: LayoutTable) -> tuple[Matmul, ...]:
    up, down = mlp_products(job, mlp, layouts)
    if not mlp.gated:
        return (up, down)
    half = product(up.rows, up.columns / 2, up.inner)
    return (half, half, down)
