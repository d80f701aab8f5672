"""The parameters of a rank tensor by tensor, in a module's order: what launchers split the optimizer along.

A layer has a tensor for each of queries, keys, values and output, for gate, up and down of its MLP or of each expert,
as transformers' Llama has; all that is small (norms, biases, gates) counts as one at its end.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from meshwright.costmodels.parameters import layer_parameters
from meshwright.costmodels.transformer import Attention, Experts, Layer, Mlp, Transformer


def layer_tensors(model: Transformer, layer: Layer) -> tuple[int, ...]:
    """Count the parameters of each tensor of a layer, in order; they sum to the layer's."""
    matrices = (*_attention(model.hidden, layer.attention), *_mlp(model.hidden, layer.mlp))
    rest = layer_parameters(model, layer).total - sum(matrices)
    return (*matrices, rest) if rest else matrices


def _attention(hidden: int, attention: Attention) -> Iterator[int]:
    output = attention.heads * attention.value_head_dim
    queries, latent = attention.heads * attention.head_dim, attention.latent
    if latent is None:
        yield hidden * queries
        yield hidden * attention.kv_heads * attention.head_dim
        yield hidden * attention.kv_heads * attention.value_head_dim
    else:
        if latent.query_rank is None:
            yield hidden * queries
        else:
            yield hidden * latent.query_rank
            yield latent.query_rank * queries
        yield hidden * (latent.kv_rank + latent.rope_head_dim)
        yield latent.kv_rank * attention.heads * (latent.nope_head_dim + latent.value_head_dim)
    yield output * hidden


def _mlp(hidden: int, mlp: Mlp | Experts) -> Iterator[int]:
    matrices = 3 if mlp.gated else 2
    if isinstance(mlp, Mlp):
        yield from [hidden * mlp.ffn_hidden] * matrices
        return
    yield hidden * mlp.experts
    yield from [hidden * mlp.ffn_hidden] * matrices * mlp.experts
    if mlp.shared_ffn_hidden:
        yield from [hidden * mlp.shared_ffn_hidden] * matrices


def subgroups(tensors: Sequence[float], size: float) -> tuple[float, ...]:
    """Join tensors in order to groups of at least a size, but for the last, as DeepSpeed's stage 3 does."""
    groups, filled = [], 0.0
    for tensor in tensors:
        filled += tensor
        if filled >= size:
            groups.append(filled)
            filled = 0.0
    return (*groups, filled) if filled else tuple(groups)


def first_shares(groups: Sequence[float]) -> np.ndarray:
    """Give the share of all that the first none, one, two ... groups have, [groups + 1]."""
    sums = np.concatenate([[0.0], np.cumsum(groups)])
    return np.asarray(sums / sums[-1])
