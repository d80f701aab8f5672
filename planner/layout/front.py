"""The layouts worth remembering while a large space goes by in chunks: the Pareto front of each mesh.

Within a mesh (tensor, context, pipeline, data and expert degrees) a layout is dropped when another one is no slower and
needs no more memory. What any objective puts first, for any limit on time, is on the front: nothing asked for is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from meshwright.costmodels.layout import COLUMNS, FloatArray, IntArray, LayoutTable

MESH_COLUMNS = ("tensor_parallel", "pipeline_parallel", "context_parallel", "expert_parallel", "data_parallel")
TIE_COLUMNS = (*MESH_COLUMNS, *(name for name in COLUMNS if name not in MESH_COLUMNS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Some layouts with their step times and peak bytes (as nvidia-smi counts), each of shape [layouts]."""

    layouts: LayoutTable
    step_time_s: FloatArray
    peak_bytes: FloatArray

    def __len__(self) -> int:
        return len(self.step_time_s)

    def take(self, rows: IntArray) -> Self:
        """Give some rows."""
        return type(self)(
            layouts=self.layouts.take(rows), step_time_s=self.step_time_s[rows], peak_bytes=self.peak_bytes[rows]
        )

    def reduced(self) -> Self:
        """Give the front of each mesh, mesh by mesh, fastest first; of equal layouts the first by TIE_COLUMNS."""
        mesh = mesh_numbers(self.layouts)
        order = np.lexsort([*reversed(tie_columns(self.layouts)), self.peak_bytes, self.step_time_s, mesh])
        ranks = np.unique(self.peak_bytes, return_inverse=True)[1].reshape(-1)
        # Later meshes start below all ranks of earlier ones, so that one running minimum serves them all.
        depth = ranks[order] - mesh[order] * (len(ranks) + 1)
        least = np.minimum.accumulate(depth)
        better = np.ones(len(order), dtype=bool)
        better[1:] = depth[1:] < least[:-1]
        return self.take(order[better])


def tie_columns(layouts: LayoutTable) -> list[IntArray]:
    """Give what decides between equals, first what counts most, each of shape [layouts]."""
    return [getattr(layouts, name) for name in TIE_COLUMNS]


def mesh_numbers(layouts: LayoutTable) -> IntArray:
    """Give each layout the number of its mesh, from 0, shape [layouts]."""
    numbers = np.zeros(len(layouts), dtype=np.int64)
    for name in MESH_COLUMNS:
        values, inverse = np.unique(getattr(layouts, name), return_inverse=True)
        numbers = numbers * len(values) + inverse.reshape(-1)
    return np.unique(numbers, return_inverse=True)[1].reshape(-1)


def joined(fronts: Sequence[Front]) -> Front:
    """Give one front of several, not reduced."""
    return Front(
        layouts=LayoutTable.joined([front.layouts for front in fronts]),
        step_time_s=np.concatenate([front.step_time_s for front in fronts]),
        peak_bytes=np.concatenate([front.peak_bytes for front in fronts]),
    )
