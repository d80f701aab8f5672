"""The pieces into which a plan cuts a tensor: slabs of tensor, expert and pipeline parallelism, and shards of those.

A slab is a box of the tensor. Its elements, counted row by row, are cut into as many equal shards as share it, rounded
up to whole elements or whole rows; the last ones may be short, or empty. Slabs are equal too, rounded up, so that the
last one may reach beyond the tensor: what lies there is padding, which is nothing.

Dimensions that neither of two plans cuts are folded into those before them, so that most tensors are but a line.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import IntArray
from meshwright.costmodels.state import VOCABULARY_MULTIPLE
from meshwright.planner.resharding.boxes import Cube, boxes_of_ranges, clipped, volumes
from meshwright.planner.resharding.placement import Placement, Stages
from meshwright.planner.resharding.tensors import ModelTensor, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Which dimensions of a tensor are folded: columns into rows, and rows into experts."""

    columns: bool
    rows: bool

    def cube(self, cube: Cube) -> Cube:
        """Fold the dimensions of a tensor or of a slab."""
        experts, rows, columns = cube
        if self.rows:
            return 1, experts * rows * columns, 1
        return (experts, rows * columns, 1) if self.columns else cube

    def origins(self, origins: IntArray, cube: Cube) -> IntArray:
        """Fold the first elements of slabs, [slabs, 3], of a tensor of these dimensions."""
        experts, rows, columns = origins.T
        nothing = np.zeros_like(experts)
        if self.rows:
            return np.stack([nothing, (experts * cube[1] + rows) * cube[2] + columns, nothing], axis=1)
        return np.stack([experts, rows * cube[2] + columns, nothing], axis=1) if self.columns else origins


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """The pieces of a tensor, in order of slabs and of shards in them.

    slab: dimensions of each slab, padding included. origins: the first element of each piece's slab, [pieces, 3].
    first: the first element of each piece, counted in its slab. shards: pieces of a slab. boxes: [boxes, 6], in order
    of pieces; piece: of each box. holders: the ranks that hold each piece, [pieces, copies].
    """

    slab: Cube
    origins: IntArray
    first: IntArray
    shards: int
    boxes: IntArray
    piece: IntArray
    holders: IntArray


def degrees(tensor: ModelTensor, placement: Placement) -> tuple[int, int, int]:
    """Give over how many ranks experts, rows and columns of a tensor are cut."""
    layout = placement.layout
    match tensor.split:
        case Split.ROWS:
            return 1, layout.tensor_parallel, 1
        case Split.COLUMNS:
            return 1, 1, layout.tensor_parallel
        case Split.VOCABULARY:
            stages = layout.pipeline_parallel if layout.vocabulary_parallel else 1
            return 1, layout.tensor_parallel * stages, 1
        case Split.EXPERT_ROWS:
            return layout.expert_parallel, layout.expert_tensor_parallel, 1
        case Split.EXPERT_COLUMNS:
            return layout.expert_parallel, 1, layout.expert_tensor_parallel
    return 1, 1, 1


def fold_of(tensor: ModelTensor, cuts: Sequence[tuple[int, int, int]]) -> Fold:
    """Give what is folded where plans cut a tensor so: what is behind the last dimension that is cut."""
    columns = all(cut[2] == 1 for cut in cuts)
    return Fold(columns=columns, rows=columns and (tensor.cube[0] == 1 or all(cut[1] == 1 for cut in cuts)))


def whole(tensor: ModelTensor, fold: Fold, *, holder: int) -> Pieces:
    """Give a tensor as one piece, as a consolidated checkpoint holds it."""
    cube = fold.cube(tensor.cube)
    return Pieces(
        slab=cube,
        origins=np.zeros((1, 3), dtype=np.int64),
        first=np.zeros(1, dtype=np.int64),
        shards=1,
        boxes=np.array([[0, cube[0], 0, cube[1], 0, cube[2]]]),
        piece=np.zeros(1, dtype=np.int64),
        holders=np.array([[holder]]),
    )


def pieces_of(tensor: ModelTensor, placement: Placement, *, shards: int, fold: Fold, stages: Stages) -> Pieces:
    """Give the pieces of a tensor that is cut into so many shards a slab, on the ranks of these stages."""
    cuts = degrees(tensor, placement)
    slab = _slab(tensor, placement, cuts)
    every = np.indices(cuts).reshape(3, -1).T * np.array(slab)
    local, origins = fold.cube(slab), fold.origins(every, tensor.cube)
    size = local[0] * local[1] * local[2]
    granule = size // (slab[0] if tensor.expert else slab[1]) if placement.by_rows else 1
    each = granule * -(-(size // granule) // shards)
    first = np.tile(np.minimum(np.arange(shards) * each, size), len(origins))
    last = np.minimum(first + each, size)
    piece, boxes = boxes_of_ranges(first, last, local)
    origins = np.repeat(origins, shards, axis=0)
    boxes = clipped(boxes + np.repeat(origins, 2, axis=1)[piece], fold.cube(tensor.cube))
    there = volumes(boxes) > 0
    return Pieces(
        slab=local,
        origins=origins,
        first=first,
        shards=shards,
        boxes=boxes[there],
        piece=piece[there],
        holders=_holders(tensor, placement, shards=shards, stages=stages),
    )


def _slab(tensor: ModelTensor, placement: Placement, cuts: tuple[int, int, int]) -> Cube:
    experts, rows, columns = tensor.cube
    if tensor.split is Split.VOCABULARY:
        multiple = VOCABULARY_MULTIPLE * placement.layout.tensor_parallel
        rows = -(-rows // multiple) * multiple
    return -(-experts // cuts[0]), -(-rows // cuts[1]), -(-columns // cuts[2])


def _holders(tensor: ModelTensor, placement: Placement, *, shards: int, stages: Stages) -> IntArray:
    """Give the ranks of each piece: those of a slab's copies whose number among them is its shard's."""
    layout, at = placement.layout, placement.coordinates
    if tensor.expert:
        slab = at["expert"] * layout.expert_tensor_parallel + at["expert_tensor"]
        copy = at["expert_data"]
    else:
        slab = at["tensor"] if tensor.split is not Split.WHOLE else np.zeros_like(at["tensor"])
        copy = at["data_context"]
    piece = slab * shards + copy % shards
    pieces = (int(slab.max()) + 1) * shards
    of_first = placement.ranks[np.argsort(piece, kind="stable")].reshape(pieces, -1)
    shifted = [of_first + stage * placement.stage_stride for stage in stages]
    shared = tensor.split is Split.VOCABULARY and layout.vocabulary_parallel
    return np.concatenate(shifted, axis=0 if shared else 1)
