"""The distinct pipeline stages of many layouts, as arrays.

Neighbours that hold the same layers take the same time; of those the first has the most micro-batches in flight, so it
stands for all of them. A layout has few such runs (the first stage, the last, one or two sizes between), however deep
its pipeline.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Self

import numpy as np

from meshwright.costmodels.layout import (
    SCHEDULES,
    BoolArray,
    FloatArray,
    IntArray,
    Layout,
    LayoutTable,
    Recompute,
    numbered,
)
from meshwright.costmodels.schedule.codes import DUAL_PIPE, FOLDED
from meshwright.costmodels.stages import stage_chunks
from meshwright.costmodels.transformer import Transformer

# How each schedule places chunks: those with the same number place them alike.
PLACEMENTS = np.array([2 if code == DUAL_PIPE else int(code in FOLDED) for code in range(len(SCHEDULES))])


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """The distinct ways in which layouts cut a model, padded with stages of multiplicity 0 and empty chunks.

    index, multiplicity: first stage and length of each run of equal stages, [cuts, stages].
    layers: layers of each kind on each chunk, [cuts, stages, chunks, kinds]; MTP modules count as layers of the last
    kind, on the chunk of the head.
    recomputed: how many of them recomputation is of, where it is of any, [cuts, stages, chunks, kinds].
    embedding, head: whether each chunk has (its share of) them, [cuts, stages, chunks].
    turn: which run the first and the last stage of each run are of, in order, [cuts, turns]; turn_stage, turn_steps:
    their numbers, and how many stages each is behind the one before (schedule/stage_times.py).
    """

    index: IntArray
    multiplicity: IntArray
    layers: IntArray
    recomputed: IntArray
    embedding: BoolArray
    head: BoolArray
    turn: IntArray
    turn_stage: IntArray
    turn_steps: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTable:
    """Distinct stages, arrays of shape [layouts, distinct stages], padded with stages of multiplicity 0.

    index: number of the first such stage. multiplicity: how many stages from there on are like it.
    layers: layers of each kind on it, shape [layouts, distinct stages, kinds]; MTP modules count as layers of the
    last kind.
    recomputed: how many of them recomputation is of, where it is of any, shape [layouts, distinct stages, kinds].
    first, last: whether it has the embedding, the head, or a share of them.
    cuts: the same by chunk; cut: which of them is each layout's, [layouts].
    """

    index: IntArray
    multiplicity: IntArray
    layers: IntArray
    recomputed: IntArray
    first: BoolArray
    last: BoolArray
    cuts: Cuts
    cut: IntArray

    def slowest(self, seconds: FloatArray) -> IntArray:
        """Give which distinct stage takes longest, [layouts], of the seconds of each, [layouts, stages]."""
        slowest: IntArray = np.argmax(np.where(self.multiplicity > 0, seconds, -1.0), axis=1)
        return slowest


_Counts = tuple[tuple[int, ...], ...]
_Stage = tuple[_Counts, _Counts, tuple[bool, ...], tuple[bool, ...]]
"""What makes stages equal: by chunk the layers of each kind, all and recomputed, and whether embedding and head."""

_Runs = tuple[tuple[_Stage, int], ...]


def stage_table(model: Transformer, layouts: LayoutTable) -> StageTable:
    """Give the distinct stages of each layout. Raises ValueError where a layout doesn't cut the model's layers."""
    code = PLACEMENTS[layouts.schedule]
    for column in (layouts.vocabulary_parallel, layouts.split, layouts.virtual_pipeline, layouts.pipeline_parallel):
        code = code * (column.max(initial=0) + 1) + column
    distinct, cut = numbered(code)
    example = np.zeros(len(distinct), dtype=np.int64)
    example[cut] = np.arange(len(cut))
    rows = [layouts.row(int(row)) for row in example]
    cuts = _cuts([_runs(_Model.of(model), _cut_alone(row)) for row in rows], kinds=len(model.layer_kinds))
    layers = cuts.layers.sum(axis=2)
    recomputed = layers if cuts.recomputed is cuts.layers else cuts.recomputed.sum(axis=2)
    first, last = np.asarray(cuts.embedding.any(axis=2)), np.asarray(cuts.head.any(axis=2))
    return StageTable(
        index=cuts.index[cut],
        multiplicity=cuts.multiplicity[cut],
        layers=layers[cut],
        recomputed=recomputed[cut],
        first=first[cut],
        last=last[cut],
        cuts=cuts,
        cut=cut,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """What of a model cuts are about."""

    kind_of_layer: tuple[int, ...]
    kinds: int
    mtp_layers: int

    @classmethod
    def of(cls, model: Transformer) -> Self:
        return cls(kind_of_layer=model.kind_of_layer, kinds=len(model.layer_kinds), mtp_layers=model.mtp_layers)


def _cut_alone(layout: Layout) -> Layout:
    """Give a layout of which only that is left which cuts depend on."""
    return Layout(
        schedule=layout.schedule,
        pipeline_parallel=layout.pipeline_parallel,
        virtual_pipeline=layout.virtual_pipeline,
        split=layout.split,
        vocabulary_parallel=layout.vocabulary_parallel,
        recompute=layout.recompute if layout.recompute_split else Recompute.NONE,
        recompute_layers=layout.recompute_layers if layout.recompute_split else None,
        recompute_split=layout.recompute_split,
    )


# A search asks for the same cuts again and again.
@lru_cache(maxsize=4096)
def _runs(model: _Model, layout: Layout) -> _Runs:
    """Give the stages of a layout in order, each with the number of neighbours like it."""
    stages: list[_Stage] = []
    mtp = (model.kind_of_layer[-1],) * model.mtp_layers
    numbers = range(model.kinds)
    for held in stage_chunks(len(model.kind_of_layer), layout, mtp_layers=model.mtp_layers):
        kinds = [
            [model.kind_of_layer[layer] for layer in layers] + [*mtp] * has_head
            for layers, has_head in zip(held.layers, held.head, strict=True)
        ]
        counts = tuple(tuple(map(chunk.count, numbers)) for chunk in kinds)
        recomputed = counts
        if layout.recompute_split:
            again = [chunk[:count] for chunk, count in zip(kinds, held.recomputed, strict=True)]
            recomputed = tuple(tuple(map(chunk.count, numbers)) for chunk in again)
        embedding, head = held.embedding, held.head
        if layout.vocabulary_parallel:
            embedding = (True, *(False for _ in held.layers[1:]))
            head = embedding[::-1]
        stages.append((counts, recomputed, embedding, head))
    return tuple((stage, len(list(equal))) for stage, equal in groupby(stages))


def _cuts(cuts: list[_Runs], *, kinds: int) -> Cuts:
    width = max((len(runs) for runs in cuts), default=1)
    chunks = max((len(layers) for runs in cuts for (layers, *_), _ in runs), default=1)
    turns = max((sum(min(length, 2) for _, length in runs) for runs in cuts), default=1)
    index, multiplicity = (np.zeros((len(cuts), width), dtype=np.int64) for _ in range(2))
    turn, turn_stage, turn_steps = (np.zeros((len(cuts), turns), dtype=np.int64) for _ in range(3))
    layers, recomputed = (np.zeros((len(cuts), width, chunks, kinds), dtype=np.int64) for _ in range(2))
    embedding, head = (np.zeros((len(cuts), width, chunks), dtype=bool) for _ in range(2))
    for row, runs in enumerate(cuts):
        own = slice(len(runs[0][0][0]))
        lengths = [length for _, length in runs]
        index[row, : len(runs)] = np.cumsum([0, *lengths[:-1]])
        multiplicity[row, : len(runs)] = lengths
        for column, (stage, _) in enumerate(runs):
            for values, of_chunks in zip((layers, recomputed, embedding, head), stage, strict=True):
                values[row, column, own] = of_chunks
        steps = [(column, step) for column, length in enumerate(lengths) for step in (1, length - 1) if step]
        turn[row, : len(steps)], turn_steps[row, : len(steps)] = zip(*steps, strict=True)
        turn_stage[row, : len(steps)] = np.cumsum(turn_steps[row, : len(steps)]) - 1
    return Cuts(
        index=index,
        multiplicity=multiplicity,
        layers=layers,
        recomputed=layers if np.array_equal(layers, recomputed) else recomputed,
        embedding=embedding,
        head=head,
        turn=turn,
        turn_stage=turn_stage,
        turn_steps=turn_steps,
    )
