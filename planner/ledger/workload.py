"""What the reference launcher is to train: a model, cut by a layout, on so many micro-batches a step."""

from collections.abc import Iterator
from dataclasses import dataclass

from meshwright.costmodels.layout import Layout, Recompute
from meshwright.costmodels.stages import chunks_of_stage
from meshwright.costmodels.transformer import Transformer
from meshwright.planner.ranks import Chunks, RankPlan, rank_plan

FLOAT_BYTES = 4
BF16_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One model chunk of a stage.

    index: its place among all chunks in model order. layers: those it holds. recomputed: how many of them, from the
    first one on, the backward pass computes again. first, last: whether it has the embedding, the head.
    """

    index: int
    layers: tuple[int, ...]
    recomputed: int
    first: bool
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One training job of the launcher.

    stages: by stage, by chunk, the layers held. micro_batches: of one replica in one step, each of
    layout.micro_batch sequences. element_bytes: of activations and of gathered parameters; what lasts from step to
    step, and sums of gradients over replicas, are fp32.
    """

    model: Transformer
    layout: Layout
    stages: tuple[Chunks, ...]
    sequence_length: int
    micro_batches: int
    element_bytes: int = FLOAT_BYTES

    @property
    def local_sequence(self) -> int:
        """Tokens of a sequence that a context rank has."""
        return self.sequence_length // self.layout.context_parallel

    @property
    def local_tokens(self) -> int:
        """Tokens of a micro-batch that a rank has between the matrices of a pair."""
        parts = self.layout.tensor_parallel if self.layout.sequence_parallel else 1
        return self.layout.micro_batch * self.local_sequence // parts

    @property
    def global_batch(self) -> int:
        """Sequences of one step."""
        return self.micro_batches * self.layout.micro_batch * self.layout.data_parallel

    @property
    def last_chunk(self) -> int:
        """The index of the chunk with the head."""
        return self.layout.pipeline_parallel * self.layout.virtual_pipeline - 1

    def rank(self, rank: int) -> RankPlan:
        """Give one rank's part. Raises InputError where there is no such rank."""
        return rank_plan(self.layout, stages=self.stages, rank=rank)

    def chunks(self, stage: int) -> tuple[Chunk, ...]:
        """Give a stage's chunks, in the order in which the first micro-batch meets them."""
        indices = chunks_of_stage(self.layout, stage)
        return tuple(
            Chunk(
                index=index,
                layers=layers,
                recomputed=self._recomputed(index, len(layers)),
                first=index == 0,
                last=index == self.last_chunk,
            )
            for index, layers in zip(indices, self.stages[stage], strict=True)
        )

    def layers_of(self, chunk: Chunk) -> Iterator[tuple[int, Recompute]]:
        """Give a chunk's layers, each with what is recomputed of it."""
        for position, layer in enumerate(chunk.layers):
            yield layer, self.layout.recompute if position < chunk.recomputed else Recompute.NONE

    def _recomputed(self, index: int, layers: int) -> int:
        if self.layout.recompute is Recompute.NONE:
            return 0
        if self.layout.recompute_split:
            return self.layout.recompute_split[index]
        return layers if self.layout.recompute_layers is None else min(layers, self.layout.recompute_layers)
