"""What context ranks exchange, so that each query meets the keys before it: one rank's collectives in a step.

all-gather    keys and values of all tokens are gathered, together; their gradients are scattered back
ulysses       queries, keys, values and what attention gives are exchanged, heads for tokens, and so are their gradients

A layer that is computed again exchanges again what its forward pass did.
"""

from collections.abc import Iterator

from meshwright.catalog.context_method import ContextMethod
from meshwright.costmodels.layout import Recompute
from meshwright.costmodels.transformer import Attention
from meshwright.planner.ledger.transfers import Kind, Transfer
from meshwright.planner.ledger.workload import Workload
from meshwright.planner.ranks import RankPlan


def context_traffic(workload: Workload, rank: RankPlan) -> Iterator[Transfer]:
    """Give what a rank exchanges over its context group."""
    if workload.layout.context_parallel == 1:
        return
    ranks = rank.groups["context"]
    gathers = workload.layout.context_method is ContextMethod.ALL_GATHER
    for chunk in workload.chunks(rank.stage):
        for index, recompute in workload.layers_of(chunk):
            attention = workload.model.layers[index].attention
            again = recompute is Recompute.FULL
            layer = _gathered if gathers else _exchanged
            yield from layer(workload, attention, ranks, forwards=2 if again else 1)


def _gathered(workload: Workload, attention: Attention, ranks: tuple[int, ...], *, forwards: int) -> Iterator[Transfer]:
    whole = workload.layout.context_parallel * _head_bytes(workload, attention, 2 * attention.kv_heads)
    for kind, passes in ((Kind.ALL_GATHER, forwards), (Kind.REDUCE_SCATTER, 1)):
        count = passes * workload.micro_batches
        yield Transfer(kind=kind, ranks=ranks, count=count, payload_bytes=count * whole)


def _exchanged(
    workload: Workload, attention: Attention, ranks: tuple[int, ...], *, forwards: int
) -> Iterator[Transfer]:
    count = (forwards + 1) * workload.micro_batches
    both = 2 * (attention.heads + attention.kv_heads)
    payload_bytes = count * _head_bytes(workload, attention, both)
    yield Transfer(kind=Kind.ALL_TO_ALL, ranks=ranks, count=4 * count, payload_bytes=payload_bytes)


def _head_bytes(workload: Workload, attention: Attention, heads: int) -> int:
    """Give the bytes of so many heads of a rank's tokens of one micro-batch, its tensor group's share of them."""
    tokens = workload.layout.micro_batch * workload.local_sequence
    return tokens * heads // workload.layout.tensor_parallel * attention.head_dim * workload.element_bytes
