"""Training steps of one process, alone or as one rank of a layout."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW

from meshwright.planner.ledger.parameters import chunk_units
from meshwright.planner.ledger.sharding import sharding_of
from meshwright.planner.ledger.workload import Workload
from meshwright.planner.ranks import RankPlan
from meshwright.runtime.meshes import Meshes
from meshwright.runtime.parallelize import Part
from meshwright.runtime.schedules import passes_of
from meshwright.runtime.sharding import average_over_replicas, own_parameters, place_gradients

LEARNING_RATE = 1e-3


class Training:
    """A rank's chunks, optimizer and schedule; meshes: None for one process without process groups."""

    def __init__(
        self,
        workload: Workload,
        rank: RankPlan,
        meshes: Meshes | None,
        parts: tuple[Part, ...],
        *,
        device: torch.device,
    ) -> None:
        self.workload, self.rank, self.meshes, self.parts, self.device = workload, rank, meshes, parts, device
        self.optimizer = AdamW(self.parameters(), lr=LEARNING_RATE, foreach=False)
        self.passes = passes_of(self.parts, workload, meshes, self._loss)

    def parameters(self) -> list[nn.Parameter]:
        """Give the parameters of all chunks."""
        return [parameter for part in self.parts for parameter in part.module.parameters()]

    def moments(self) -> Iterator[Tensor]:
        """Give what the optimizer keeps of each parameter from step to step."""
        for state in self.optimizer.state.values():
            yield from (state["exp_avg"], state["exp_avg_sq"])

    def step(self, number: int) -> float | None:
        """Train on the batch of step `number`; give this rank's loss where it has the head."""
        loss = self.differentiate(number)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return None if loss is None else float(loss)

    def differentiate(self, number: int) -> Tensor | None:
        """Leave the gradients of a step in the parameters, summed over all ranks."""
        words, targets = batch_of(self.workload, self.rank, number)
        loss = self.passes(words.to(self.device), targets.to(self.device))
        if self.meshes is not None:
            self._sum_gradients(self.meshes)
        return loss

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        mean = cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        return mean / self.workload.micro_batches

    def _sum_gradients(self, meshes: Meshes) -> None:
        place_gradients(self.parameters())
        for part in self.parts:
            for unit in chunk_units(self.workload.model, part.chunk):
                sharding = sharding_of(self.workload, unit, self.rank)
                if sharding.shards == 1:
                    group = meshes.replicas(expert=unit.expert)
                    average_over_replicas(own_parameters(part.module, unit), group, divisor=sharding.divisor)


def batch_of(workload: Workload, rank: RankPlan, number: int) -> tuple[Tensor, Tensor]:
    """Give a rank's words of a step and those that follow them: its replica's sequences, its context rank's tokens."""
    generator = torch.Generator().manual_seed(number)
    shape = (workload.global_batch, workload.sequence_length + 1)
    words = torch.randint(0, workload.model.vocab, shape, generator=generator)
    own = workload.micro_batches * workload.layout.micro_batch
    words = words.narrow(0, rank.coordinates["data"] * own, own)
    first, length = rank.coordinates["context"] * workload.local_sequence, workload.local_sequence
    return words.narrow(1, first, length).clone(), words.narrow(1, first + 1, length).clone()
