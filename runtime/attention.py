"""Attention of Llama's kind: rotary positions, grouped key and value heads, causal; cut over heads and over tokens."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from meshwright.costmodels.transformer import Attention


class Core(Protocol):
    """Attention proper, of queries, keys and values of shape [sequences, heads, own tokens, channels]."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Give what each query attends to, in the queries' shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """How the channels of heads turn with positions (arXiv 2104.09864, section 3.2).

    base: the wavelength of the slowest channels over that of the fastest. first_position: of the first of this rank's
    tokens in the sequence.
    """

    base: float
    first_position: int

    def __call__(self, heads: Tensor) -> Tensor:
        """Turn [sequences, tokens, heads, channels] by their positions."""
        tokens, channels = heads.shape[1], heads.shape[-1]
        last = self.first_position + tokens
        positions = torch.arange(self.first_position, last, device=heads.device, dtype=torch.float32)
        steps = torch.arange(0, channels, 2, device=heads.device, dtype=torch.float32) / channels
        angles = positions[:, None, None] * self.base**-steps
        cosine, sine = angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)
        left, right = heads.chunk(2, dim=-1)
        return torch.cat((left * cosine - right * sine, right * cosine + left * sine), dim=-1)


class AttentionLayer(nn.Module):
    """Projections around a core, which queries and keys come to turned by their positions."""

    def __init__(self, hidden: int, attention: Attention, *, core: Core, rotation: Rotation) -> None:
        super().__init__()
        self.head_dim, self.core, self.rotation = attention.head_dim, core, rotation
        width, kv_width = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
        self.query = nn.Linear(hidden, width, bias=False)
        self.key = nn.Linear(hidden, kv_width, bias=False)
        self.value = nn.Linear(hidden, kv_width, bias=False)
        self.output = nn.Linear(width, hidden, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [sequences, tokens, hidden] to the same shape; heads are those that this tensor rank holds."""
        query, key, value = (self._heads(each(tokens)) for each in (self.query, self.key, self.value))
        turned = (self.rotation(query), self.rotation(key), value)
        attended = self.core(*(each.transpose(1, 2) for each in turned))
        return self.output(attended.transpose(1, 2).flatten(2))

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, self.head_dim))


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
