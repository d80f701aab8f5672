"""Attention of Llama's kind: rotary positions, grouped key and value heads, causal; cut over heads and over tokens."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from meshwright.costmodels.transformer import Attention

ROTARY_BASE = 10_000.0


class Core(Protocol):
    """Attention proper, of queries, keys and values of shape [sequences, heads, own tokens, channels]."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Give what each query attends to, in the queries' shape."""


class AttentionLayer(nn.Module):
    """Projections around a core. first_position: of the first of this rank's tokens in the sequence."""

    def __init__(self, hidden: int, attention: Attention, *, core: Core, first_position: int) -> None:
        super().__init__()
        self.head_dim, self.core, self.first_position = attention.head_dim, core, first_position
        width, kv_width = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
        self.query = nn.Linear(hidden, width, bias=False)
        self.key = nn.Linear(hidden, kv_width, bias=False)
        self.value = nn.Linear(hidden, kv_width, bias=False)
        self.output = nn.Linear(width, hidden, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [sequences, tokens, hidden] to the same shape; heads are those that this tensor rank holds."""
        query, key, value = (self._heads(each(tokens)) for each in (self.query, self.key, self.value))
        query, key = rotated(query, self.first_position), rotated(key, self.first_position)
        attended = self.core(*(each.transpose(1, 2) for each in (query, key, value)))
        return self.output(attended.transpose(1, 2).flatten(2))

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, self.head_dim))


def rotated(heads: Tensor, first_position: int) -> Tensor:
    """Turn the channels of [sequences, tokens, heads, channels] by their positions (arXiv 2104.09864, section 3.2)."""
    tokens, channels = heads.shape[1], heads.shape[-1]
    positions = torch.arange(first_position, first_position + tokens, device=heads.device, dtype=torch.float32)
    steps = torch.arange(0, channels, 2, device=heads.device, dtype=torch.float32) / channels
    angles = positions[:, None, None] * ROTARY_BASE**-steps
    cosine, sine = angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)
    left, right = heads.chunk(2, dim=-1)
    return torch.cat((left * cosine - right * sine, right * cosine + left * sine), dim=-1)


def causal(query: Tensor, key: Tensor, value: Tensor, *, first_query: int = 0) -> Tensor:
    """Attend to all keys up to each query's own position; keys start at position 0, queries at first_query."""
    grouped = query.shape[1] != key.shape[1]
    if query.shape[2] == key.shape[2]:
        return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
    positions = torch.arange(key.shape[2], device=query.device)
    sees = positions[None, :] <= positions[first_query : first_query + query.shape[2], None]
    return scaled_dot_product_attention(query, key, value, attn_mask=sees, enable_gqa=grouped)


class WholeSequence:
    """The core where each rank has whole sequences; recomputed: its backward pass computes it again."""

    def __init__(self, *, recomputed: bool) -> None:
        self.recomputed = recomputed

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend."""
        return self.attend(query, key, value, first_query=0)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, first_query: int) -> Tensor:
        """Attend, from queries that start at first_query."""
        if not self.recomputed:
            return causal(query, key, value, first_query=first_query)
        return checkpoint(
            causal, query, key, value, first_query=first_query, use_reentrant=False, preserve_rng_state=False
        )
