"""The distinct pipeline stages of many layouts, as arrays.

Stages that hold the same layers take the same time; of those the earliest has the most micro-batches in flight, so it
stands for all of them. A layout has few distinct stages (the first, the last, one or two sizes between), however deep
its pipeline.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray, LayoutTable, numbered
from meshwright.costmodels.stages import stage_layers
from meshwright.costmodels.transformer import Transformer


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTable:
    """Distinct stages, arrays of shape [layouts, distinct stages], padded with stages of multiplicity 0.

    index: number of the earliest such stage. multiplicity: how many stages are like it.
    layers: layers of each kind on it, shape [layouts, distinct stages, kinds]; MTP modules count as layers of the
    last kind.
    first, last: whether it has the embedding, the head.
    """

    index: IntArray
    multiplicity: IntArray
    layers: IntArray
    first: BoolArray
    last: BoolArray

    def slowest(self, seconds: FloatArray) -> IntArray:
        """Give which distinct stage takes longest, [layouts], of the seconds of each, [layouts, stages]."""
        slowest: IntArray = np.argmax(np.where(self.multiplicity > 0, seconds, -1.0), axis=1)
        return slowest


_Stage = tuple[tuple[int, ...], bool, bool]


def _distinct_stages(
    model: Transformer, pipeline_parallel: int, virtual_pipeline: int
) -> dict[_Stage, tuple[int, int]]:
    """Map each distinct stage (layers by kind, first, last) to its earliest index and its multiplicity."""
    found: dict[_Stage, tuple[int, int]] = {}
    for index, chunks in enumerate(stage_layers(len(model.layers), pipeline_parallel, virtual_pipeline)):
        counts = [0] * len(model.layer_kinds)
        for chunk in chunks:
            for layer in chunk:
                counts[model.kind_of_layer[layer]] += 1
        last = index == pipeline_parallel - 1
        if last:
            counts[model.kind_of_layer[-1]] += model.mtp_layers
        stage = (tuple(counts), index == 0, last)
        earliest, multiplicity = found.get(stage, (index, 0))
        found[stage] = (earliest, multiplicity + 1)
    return found


def stage_table(model: Transformer, layouts: LayoutTable) -> StageTable:
    """Give the distinct stages of each layout."""
    base = layouts.virtual_pipeline.max(initial=0) + 1
    pairs, rows = numbered(layouts.pipeline_parallel * base + layouts.virtual_pipeline)
    by_pair = [_distinct_stages(model, int(pair // base), int(pair % base)) for pair in pairs]
    width = max((len(stages) for stages in by_pair), default=1)
    shape = (len(pairs), width)
    index, multiplicity = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    layers = np.zeros((*shape, len(model.layer_kinds)), dtype=np.int64)
    first, last = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for row, stages in enumerate(by_pair):
        for column, ((counts, is_first, is_last), (earliest, copies)) in enumerate(stages.items()):
            index[row, column], multiplicity[row, column] = earliest, copies
            layers[row, column] = counts
            first[row, column], last[row, column] = is_first, is_last
    return StageTable(
        index=index[rows], multiplicity=multiplicity[rows], layers=layers[rows], first=first[rows], last=last[rows]
    )
