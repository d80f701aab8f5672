"""The work of one layer on one device: its tokens and the shapes of its matrix products.

Shapes are those that a device sees after tensor, context and expert parallelism. `tokens` are the rows of its matrix
products, micro_batch x sequence_length / context_parallel; `held_tokens` those that it holds between them, fewer by
tensor_parallel under sequence parallelism (Korthikanti et al. 2022, arXiv 2205.05198, section 4.2.2).
"""

from dataclasses import dataclass

import numpy as np

from meshwright.catalog.context_method import ContextMethod
from meshwright.costmodels.expert_load import busiest_rank_load
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import CONTEXT_METHODS, FloatArray, IntArray, LayoutTable
from meshwright.costmodels.matmul import Matmul
from meshwright.costmodels.transformer import Attention, Experts, Mlp

ACTIVATION_BYTES = 2
ALL_GATHER, ULYSSES, HYBRID = (
    CONTEXT_METHODS.index(method) for method in (ContextMethod.ALL_GATHER, ContextMethod.ULYSSES, ContextMethod.HYBRID)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens of one micro-batch on one device, arrays of shape [layouts]."""

    computed: FloatArray
    held: FloatArray


def tokens_of(job: Job, layouts: LayoutTable) -> Tokens:
    """Give the tokens of one micro-batch on one device."""
    computed = layouts.micro_batch * job.sequence_length / layouts.context_parallel
    return Tokens(
        computed=computed, held=computed / np.where(layouts.sequence_parallel == 1, layouts.tensor_parallel, 1)
    )


def product(
    rows: FloatArray,
    columns: FloatArray | float,
    inner: FloatArray | float,
    count: FloatArray | float = 1.0,
    *,
    wide: bool = False,
) -> Matmul:
    """Give a product of so many rows, columns and inner values, each spread to the shape of the rows."""
    shape = rows.shape
    return Matmul(
        rows=rows,
        columns=np.broadcast_to(np.asarray(columns, dtype=float), shape),
        inner=np.broadcast_to(np.asarray(inner, dtype=float), shape),
        count=np.broadcast_to(np.asarray(count, dtype=float), shape),
        wide=wide,
    )


def local_kv_heads(attention: Attention, layouts: LayoutTable) -> FloatArray:
    """Give key and value heads on a device: copied where there are fewer of them than tensor ranks."""
    return np.maximum(attention.kv_heads / layouts.tensor_parallel, 1.0)


def ulysses_ranks(layouts: LayoutTable) -> IntArray:
    """Give how many context ranks exchange heads for tokens, [layouts]; the others are a ring or gather."""
    whole = np.where(layouts.context_method == ULYSSES, layouts.context_parallel, 1)
    return np.where(layouts.context_method == HYBRID, layouts.ulysses_parallel, whole)


def ring_ranks(layouts: LayoutTable) -> IntArray:
    """Give how many ranks pass keys and values round, [layouts]; 1 where there is no ring."""
    rest = layouts.context_parallel // ulysses_ranks(layouts)
    return np.where(layouts.context_method == ALL_GATHER, 1, rest)


def attended_kv_heads(attention: Attention, layouts: LayoutTable) -> FloatArray:
    """Give the key and value heads that a device's tokens go into attention with: one a rank of Ulysses at least."""
    return np.maximum(local_kv_heads(attention, layouts), ulysses_ranks(layouts))


def attention_products(job: Job, attention: Attention, layouts: LayoutTable) -> tuple[Matmul, ...]:
    """Give the projections of an attention, forward.

    Latent attention: down-projections of queries and keys run on the held tokens with whole weights, up-projections
    are split by heads (arXiv 2405.04434, section 2.1.2). Linear attention may have a gate, as wide as its values.
    """
    tokens, hidden = tokens_of(job, layouts), job.model.hidden
    heads = attention.heads / layouts.tensor_parallel
    output = product(tokens.computed, hidden, heads * attention.value_head_dim)
    latent = attention.latent
    if latent is None:
        columns = (heads + local_kv_heads(attention, layouts)) * attention.head_dim
        columns = columns + local_kv_heads(attention, layouts) * attention.value_head_dim
        inputs = product(tokens.computed, columns, hidden)
        if attention.linear is not None and attention.linear.gated:
            return (inputs, product(tokens.computed, heads * attention.value_head_dim, hidden), output)
        return (inputs, output)
    up = product(tokens.computed, heads * (latent.nope_head_dim + latent.value_head_dim), latent.kv_rank)
    down = product(tokens.held, latent.kv_rank + latent.rope_head_dim, hidden)
    if latent.query_rank is None:
        return (product(tokens.computed, heads * attention.head_dim, hidden), down, up, output)
    return (
        product(tokens.held, latent.query_rank, hidden),
        product(tokens.computed, heads * attention.head_dim, latent.query_rank),
        down,
        up,
        output,
    )


def _mlp_products(rows: FloatArray, hidden: int, width: FloatArray | float, *, gated: bool) -> tuple[Matmul, ...]:
    return (product(rows, width * (2 if gated else 1), hidden), product(rows, hidden, width))


def expert_rows(job: Job, experts: Experts, layouts: LayoutTable) -> FloatArray:
    """Give the (token, expert) pairs that the busiest device computes: of its expert group, over its expert ranks."""
    distinct = tokens_of(job, layouts).computed / layouts.tensor_parallel
    load = experts.load * busiest_rank_load(experts, layouts.expert_parallel)
    return distinct * experts.top_k * load * layouts.expert_tensor_parallel


def mlp_products(job: Job, mlp: Mlp | Experts, layouts: LayoutTable) -> tuple[Matmul, ...]:
    """Give the products of a dense MLP, or of router, shared and routed experts, forward; the router's stays wide.

    Routed experts are grouped products: each local expert has its share of the rows, rounded up to half a tile on
    average.
    """
    tokens, hidden = tokens_of(job, layouts), job.model.hidden
    if isinstance(mlp, Mlp):
        return _mlp_products(tokens.computed, hidden, mlp.ffn_hidden / layouts.tensor_parallel, gated=mlp.gated)
    local_experts = mlp.experts / layouts.expert_parallel
    rows = expert_rows(job, mlp, layouts) / local_experts + job.cluster.device.tile_rows / 2
    width = mlp.ffn_hidden / layouts.expert_tensor_parallel
    products = [
        product(tokens.held, mlp.experts, hidden, wide=True),
        product(rows, width * (2 if mlp.gated else 1), hidden, local_experts),
        product(rows, hidden, width, local_experts),
    ]
    if mlp.shared_ffn_hidden:
        shared_width = mlp.shared_ffn_hidden / layouts.tensor_parallel
        products.extend(_mlp_products(tokens.computed, hidden, shared_width, gated=mlp.gated))
    return tuple(products)
