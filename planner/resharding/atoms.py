"""What both plans leave whole: the boxes in which a piece of the old plan meets a piece of the new one.

Each atom is wanted by all ranks that hold its new piece and can be had of all that hold its old piece. Pieces of a slab
follow one another in it, so that the rows that their boxes touch do too: of each new box, the old boxes of a slab
that touch its rows are neighbours, and are found by two searches.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import BoolArray, IntArray
from meshwright.planner.resharding.boxes import hulls, intersections, no_larger, volumes
from meshwright.planner.resharding.pieces import Pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Atoms:
    """Boxes, [atoms, 6], and of each the piece of the old and of the new plan that it is of."""

    boxes: IntArray
    old: IntArray
    new: IntArray

    def __len__(self) -> int:
        return len(self.boxes)


def atoms_of(old: Pieces, new: Pieces, *, rows: int, most: int) -> Atoms:
    """Give the atoms of a tensor of so many (folded) rows an expert, of at most about `most` elements each."""
    first, second = _meeting(old, new, rows)
    boxes = intersections(old.boxes[first], new.boxes[second])
    there = volumes(boxes) > 0
    owner, cut = no_larger(boxes[there], most)
    return Atoms(boxes=cut, old=old.piece[first[there]][owner], new=new.piece[second[there]][owner])


def _meeting(old: Pieces, new: Pieces, rows: int) -> tuple[IntArray, IntArray]:
    """Give pairs of an old and a new box of slabs that meet, whose rows meet too."""
    of_old, of_new = old.piece // old.shards, new.piece // new.shards
    slabs_old, slabs_new = np.nonzero(_slabs_meet(old, new))
    begin_old, end_old = hulls(old.boxes, rows)
    begin_new, end_new = hulls(new.boxes, rows)
    # Each new box once for each old slab that its own slab meets.
    starts, counts = np.searchsorted(of_new, slabs_new), np.bincount(of_new, minlength=len(new.origins))[slabs_new]
    pair, box = _expanded(starts, counts)
    slab = slabs_old[pair]
    far = int(max(end_old.max(), end_new.max())) + 1
    low = np.searchsorted(of_old * far + end_old, slab * far + begin_new[box], side="right")
    high = np.searchsorted(of_old * far + begin_old, slab * far + end_new[box], side="left")
    which, found = _expanded(low, np.maximum(high - low, 0))
    return found, box[which]


def _slabs_meet(old: Pieces, new: Pieces) -> BoolArray:
    """Tell which slabs have elements in common, [old slabs, new slabs]."""
    meet = np.ones((1, 1), dtype=bool)
    for axis in range(3):
        first, second = old.origins[:: old.shards, axis, np.newaxis], new.origins[np.newaxis, :: new.shards, axis]
        meet = meet & (first < second + new.slab[axis]) & (second < first + old.slab[axis])
    return meet


def _expanded(starts: IntArray, counts: IntArray) -> tuple[IntArray, IntArray]:
    """Give for ranges of so many numbers the number of its range, and each number."""
    owner = np.repeat(np.arange(len(starts)), counts)
    return owner, starts[owner] + np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
