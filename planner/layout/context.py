"""How context parallelism can be cut: over how many ranks Ulysses, and what each way of it asks for.

Ulysses over u ranks leaves each heads / (tensor x u) heads, and as many key heads: kv_heads / (tensor x u) of them, or,
where the software repeats them, one that so many ranks have.
"""

from math import gcd

import numpy as np

from meshwright.catalog.context_method import ContextMethod
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import CONTEXT_METHODS, BoolArray, IntArray
from meshwright.planner.layout.rules import Columns, Rule

METHODS = {method: CONTEXT_METHODS.index(method) for method in ContextMethod}


def hybrid_ulysses(job: Job, columns: Columns) -> IntArray:
    """Give over how many ranks the hybrid method exchanges heads, [layouts]; 1 where there is no hybrid.

    That is the most that heads, the context ranks and a node have room for, where they haven't for all context ranks.
    """
    method, context, tensor = (columns[name] for name in ("context_method", "context_parallel", "tensor_parallel"))
    chosen = np.ones(len(method), dtype=np.int64)
    hybrid = np.flatnonzero((method == METHODS[ContextMethod.HYBRID]) & (context > 2))
    context, tensor = context[hybrid], tensor[hybrid]
    heads = gcd(*(kind.attention.heads for kind in job.model.layer_kinds))
    for ranks in range(2, min(heads, job.cluster.domain_devices) + 1):
        if heads % ranks == 0:
            fits = (context % ranks == 0) & (context > ranks) & (tensor * ranks <= job.cluster.domain_devices)
            chosen[hybrid] = np.where(fits & _heads_divide(job, tensor * ranks), ranks, chosen[hybrid])
    alone = (tensor * context <= job.cluster.domain_devices) & _heads_divide(job, tensor * context)
    chosen[hybrid] = np.where(alone, 1, chosen[hybrid])
    return chosen


def _heads_divide(job: Job, parts: IntArray) -> BoolArray:
    """Give where each of so many parts of the heads is whole, and so are key heads."""
    kept = np.ones(len(parts), dtype=bool)
    for attention in {kind.attention for kind in job.model.layer_kinds}:
        kept &= attention.heads % parts == 0
        repeated = (parts % attention.kv_heads == 0) & job.stack.repeats_key_values
        kept &= (attention.kv_heads % parts == 0) | repeated
    return kept


def _stack_has_method(job: Job, columns: Columns) -> BoolArray:
    known = [METHODS[method] for method in job.stack.context_methods]
    return np.asarray((columns["context_parallel"] == 1) | np.isin(columns["context_method"], known))


def _heads_are_exchanged_whole(job: Job, columns: Columns) -> BoolArray:
    other = columns["context_method"] != METHODS[ContextMethod.ULYSSES]
    parts = columns["tensor_parallel"] * columns["context_parallel"]
    return np.asarray(other | _heads_divide(job, parts))


def _hybrid_is_both(job: Job, columns: Columns) -> BoolArray:
    other = columns["context_method"] != METHODS[ContextMethod.HYBRID]
    return np.asarray(other | (hybrid_ulysses(job, columns) > 1))


CONTEXT_RULES = (
    Rule(reason="the training software has no such method of context parallelism", keeps=_stack_has_method),
    Rule(reason="Ulysses does not divide the heads and key heads of a tensor rank", keeps=_heads_are_exchanged_whole),
    Rule(reason="no part of the context ranks can exchange heads in a node, or all of them can", keeps=_hybrid_is_both),
)
