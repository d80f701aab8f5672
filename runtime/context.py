"""Context parallelism: what ranks with pieces of the same sequences exchange around attention."""

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed import _functional_collectives as collectives

from meshwright.runtime.attention import WholeSequence


class GatheredKeys(WholeSequence):
    """Each rank keeps its own queries and gathers all keys and values (arXiv 2407.21783, section 3.3.2)."""

    def __init__(self, group: ProcessGroup, *, recomputed: bool) -> None:
        super().__init__(recomputed=recomputed)
        self.group = group

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend to the keys of all ranks up to each query."""
        pieces = collectives.all_gather_single_autograd(torch.stack((key, value)), 0, self.group)
        pieces = pieces.unflatten(0, (-1, 2)).movedim(0, 3)  # [both, sequences, heads, ranks, tokens, channels]
        keys, values = pieces.flatten(3, 4).unbind(0)
        return self.attend(query, keys, values, first_query=self.group.rank() * query.shape[2])


class ExchangedHeads(WholeSequence):
    """Each rank gives pieces of its heads for whole sequences of some heads, and back (arXiv 2309.14509)."""

    def __init__(self, group: ProcessGroup, *, recomputed: bool) -> None:
        super().__init__(recomputed=recomputed)
        self.group = group

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend with whole sequences of a share of the heads."""
        query, key, value = (self._to_sequences(each) for each in (query, key, value))
        return self._to_heads(self.attend(query, key, value, first_query=0))

    def _to_sequences(self, heads: Tensor) -> Tensor:
        parts = heads.unflatten(1, (self.group.size(), -1)).movedim(1, 0).contiguous()
        received = collectives.all_to_all_single(parts, None, None, self.group)
        return received.movedim(0, 2).flatten(2, 3)

    def _to_heads(self, sequences: Tensor) -> Tensor:
        parts = sequences.unflatten(2, (self.group.size(), -1)).movedim(2, 0).contiguous()
        received = collectives.all_to_all_single(parts, None, None, self.group)
        return received.movedim(0, 1).flatten(1, 2)
