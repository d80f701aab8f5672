"""The segments of a model's layers that a stage may hold, and stage tables of them.

A segment [a, a + n) is told by what a cost can see of it, the kinds of its layers in order: its run. Models repeat
themselves, so that few runs stand for all segments.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from meshwright.costmodels.layout import IntArray, Layout
from meshwright.costmodels.stage_table import Cuts, StageTable
from meshwright.costmodels.transformer import Transformer


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """All segments of at most so many layers.

    run: which run of kinds each is, [starts, sizes], sizes from 1 on; 0 where it would reach beyond the model.
    sizes: layers of each run, [runs].
    until: layers of each kind among the first so many of a run and MTP modules behind it, [runs, layers + 1, kinds].
    """

    run: IntArray
    sizes: IntArray
    until: IntArray

    @classmethod
    def of(cls, model: Transformer, *, longest: int) -> Self:
        """Give the segments of a model, of at most `longest` layers."""
        kinds, layers = model.kind_of_layer, len(model.layers)
        numbers: dict[tuple[int, ...], int] = {}
        run = np.zeros((layers, longest), dtype=np.int64)
        for start in range(layers):
            for size in range(1, min(longest, layers - start) + 1):
                run[start, size - 1] = numbers.setdefault(kinds[start : start + size], len(numbers))
        behind = (kinds[-1],) * model.mtp_layers
        width = longest + len(behind)
        padded = np.array([(*own, *behind, *(-1,) * (width - len(own) - len(behind))) for own in numbers])
        until = np.zeros((len(numbers), width + 1, len(model.layer_kinds)), dtype=np.int64)
        until[:, 1:] = np.cumsum(padded[..., np.newaxis] == np.arange(len(model.layer_kinds)), axis=1)
        return cls(run=run, sizes=np.array([len(own) for own in numbers]), until=until)

    def table(
        self, layout: Layout, *, stage: IntArray, run: IntArray, recomputed: IntArray, mtp_layers: int
    ) -> StageTable:
        """Give a stage table, as of one layout, of whose stages each holds a run, arrays of shape [stages].

        Args:
            layout: what else is the same of all.
            stage: the number of each in its pipeline.
            run: what it holds.
            recomputed: how many of its layers, from the first on, it recomputes.
            mtp_layers: MTP modules, which the last stage has.

        """
        is_last = stage == layout.pipeline_parallel - 1
        layers = self.until[run, self.sizes[run] + mtp_layers * is_last][np.newaxis]
        again = self.until[run, recomputed][np.newaxis]
        first, last = (np.atleast_2d(ends | layout.vocabulary_parallel) for ends in (stage == 0, is_last))
        ones = np.ones((1, len(stage)), dtype=np.int64)
        cuts = Cuts(
            index=stage[np.newaxis],
            multiplicity=ones,
            layers=layers[:, :, np.newaxis],
            recomputed=again[:, :, np.newaxis],
            embedding=first[:, :, np.newaxis],
            head=last[:, :, np.newaxis],
            turn=np.arange(len(stage))[np.newaxis],
            turn_stage=stage[np.newaxis],
            turn_steps=ones,
        )
        return StageTable(
            index=stage[np.newaxis],
            multiplicity=ones,
            layers=layers,
            recomputed=again,
            first=first,
            last=last,
            cuts=cuts,
            cut=np.zeros(1, dtype=np.int64),
        )
