"""A mixture of experts: a router, routed experts of which each expert rank holds some, and perhaps a shared one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed import _functional_collectives as collectives
from torch.distributed.tensor import DTensor, Partial
from torch.nn.functional import linear, silu

from meshwright.costmodels.transformer import Experts
from meshwright.runtime.mlp import MlpLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """Where the rows of a rank's tokens go, the same for each micro-batch.

    first_position: of the rank's first token in its sequence. rows: by expert rank of the group, by expert, how many
    rows it hands out for a micro-batch. own: this rank's number among them. group: None where a rank has all experts.
    """

    first_position: int
    rows: tuple[tuple[int, ...], ...]
    own: int
    group: ProcessGroup | None

    @property
    def experts_each(self) -> int:
        """Experts of one rank."""
        return len(self.rows[0]) // len(self.rows)

    @property
    def sent(self) -> list[int]:
        """Rows that this rank hands to each member of the group."""
        own, each = self.rows[self.own], self.experts_each
        return [sum(own[first : first + each]) for first in range(0, len(own), each)]

    @property
    def received(self) -> tuple[tuple[int, ...], ...]:
        """Rows that this rank gets, by member that hands them out, by expert of its own."""
        first = self.own * self.experts_each
        return tuple(rows[first : first + self.experts_each] for rows in self.rows)


class RoutedExperts(nn.Module):
    """The gated MLPs of a rank's experts; parameters of shape [experts, outputs, inputs]."""

    def __init__(self, hidden: int, width: int, count: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.empty(count, width, hidden))
        self.up = nn.Parameter(torch.empty(count, width, hidden))
        self.down = nn.Parameter(torch.empty(count, hidden, width))

    def forward(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Map rows [rows, hidden], of which the first counts[0] are for the first expert and so on."""
        weights = zip(self.gate.unbind(0), self.up.unbind(0), self.down.unbind(0), strict=True)
        mapped = [
            linear(silu(linear(each, gate)) * linear(each, up), down)
            for each, (gate, up, down) in zip(rows.split(list(counts)), weights, strict=True)
        ]
        return torch.cat(mapped)


class Mixture(nn.Module):
    """Routes each token to top_k experts and sums what they give, by the router's weights."""

    def __init__(self, hidden: int, experts: Experts, *, routes: Routes) -> None:
        super().__init__()
        self.routes, self.top_k, self.experts_in_all = routes, experts.top_k, experts.experts
        self.router = nn.Linear(hidden, experts.experts, bias=False)
        self.experts = RoutedExperts(hidden, experts.ffn_hidden, routes.experts_each)
        self.shared = MlpLayer(hidden, experts.shared_ffn_hidden) if experts.shared_ffn_hidden else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [sequences, tokens, hidden] to the same shape."""
        shared = None if self.shared is None else self.shared(tokens)
        chosen = self._chosen(tokens)
        weights = linear(tokens, _on_own_tokens(self.router.weight)).softmax(-1)
        weights = weights.gather(-1, chosen.expand(*tokens.shape[:-1], self.top_k)).flatten()
        order = chosen.expand(*tokens.shape[:-1], self.top_k).flatten().argsort(stable=True)
        rows = tokens.flatten(0, 1)[order // self.top_k]
        mapped = self._on_experts(rows)
        weighted = torch.empty_like(mapped).index_copy(0, order, mapped) * weights[:, None]
        routed = weighted.view(-1, self.top_k, tokens.shape[-1]).sum(1).view_as(tokens)
        return routed if shared is None else routed + shared

    def _chosen(self, tokens: Tensor) -> Tensor:
        """Give each token's experts, [tokens, top_k], from its position alone."""
        first, length = self.routes.first_position, tokens.shape[1]
        positions = torch.arange(first, first + length, device=tokens.device)[:, None]
        return (positions * self.top_k + torch.arange(self.top_k, device=tokens.device)) % self.experts_in_all

    def _on_experts(self, rows: Tensor) -> Tensor:
        """Hand rows, sorted by expert, to the ranks of their experts, and give back what those make of them."""
        routes = self.routes
        if routes.group is None:
            return self.experts(rows, routes.rows[0])
        received = [sum(counts) for counts in routes.received]
        arrived = collectives.all_to_all_single(rows, received, routes.sent, routes.group)
        order = _by_expert(routes.received, rows.device)
        counts = [sum(each) for each in zip(*routes.received, strict=True)]
        mapped = self.experts(arrived[order], counts)
        back = torch.empty_like(mapped).index_copy(0, order, mapped)
        return collectives.all_to_all_single(back, routes.sent, received, routes.group)


def _by_expert(received: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Give the order that sorts rows by expert, which arrive by member of the group and then by expert."""
    expert = [number for counts in received for number, count in enumerate(counts) for _ in range(count)]
    return torch.tensor(sorted(range(len(expert)), key=expert.__getitem__), device=device)


def _on_own_tokens(weight: Tensor) -> Tensor:
    """Give a whole weight of which each tensor rank has the gradient of its own tokens."""
    if isinstance(weight, DTensor):
        return weight.to_local(grad_placements=[Partial()])
    return weight
