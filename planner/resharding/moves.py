"""The moves of a reshard, exactly: who sends which elements of a tensor to whom, from where to where.

A move is a box of a tensor. Elements are counted in the buffers between which it goes: the sender's shard of the old
plan, or of the new one where it handed on what it has got itself, or the whole tensor in a checkpoint; and the
receiver's shard of the new plan. Row after row of the box lies a slab's width further in each, so that bytes are

    (first element + expert x strides[0] + row x strides[1] + column x strides[2]) x bytes of an element
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import BoolArray, IntArray
from meshwright.planner.resharding.boxes import Cube, extents
from meshwright.planner.resharding.groups import Group
from meshwright.planner.resharding.pieces import Pieces
from meshwright.planner.resharding.reshard import Reshard


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """The moves of one group, in order of rounds; arrays of [moves], or [moves, 3] for experts, rows and columns.

    round: 0 for what a device keeps, then the number of the round. start, size: the box, in the group's folded
    dimensions. source_element, destination_element: the first element in the buffers that it goes between.
    relayed: from the sender's shard of the new plan.
    """

    group: Group
    round: IntArray
    source: IntArray
    destination: IntArray
    start: IntArray
    size: IntArray
    source_element: IntArray
    destination_element: IntArray
    relayed: BoolArray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sends:
    """Sends of all groups: by atom, in order of atoms."""

    round: IntArray
    atom: IntArray
    source: IntArray
    destination: IntArray
    relayed: BoolArray


def moves_of(found: Reshard) -> tuple[Moves, ...]:
    """Give the moves of each group, those that stay where they are included."""
    sends = _sends(found)
    bounds = np.searchsorted(sends.atom, found.starts)
    return tuple(
        _moves(group, sends, slice(low, high), first, found.checkpoint)
        for group, low, high, first in zip(found.groups, bounds, bounds[1:], found.starts, strict=False)
    )


def _sends(found: Reshard) -> _Sends:
    kept = found.kept
    rounds = [np.zeros(len(kept.keys), dtype=np.int64)]
    rounds += [np.full(len(each.atom), number) for number, each in enumerate(found.rounds, start=1)]
    atom = np.concatenate([kept.atom, *(each.atom for each in found.rounds)])
    order = np.argsort(atom, kind="stable")
    stays = np.zeros(len(kept.keys), dtype=bool)
    return _Sends(
        round=np.concatenate(rounds)[order],
        atom=atom[order],
        source=np.concatenate([kept.device, *(each.source for each in found.rounds)])[order],
        destination=np.concatenate([kept.device, *(each.destination for each in found.rounds)])[order],
        relayed=np.concatenate([stays, *(each.relayed for each in found.rounds)])[order],
    )


def _moves(group: Group, sends: _Sends, own: slice, first_atom: int, checkpoint: int) -> Moves:
    order = np.argsort(sends.round[own], kind="stable")
    atom = (sends.atom[own] - first_atom)[order]
    relayed, source = sends.relayed[own][order], sends.source[own][order]
    start = group.atoms.boxes[atom, ::2]
    into = _elements(group.new, group.atoms.new[atom], start)
    out_of = _elements(group.old, group.atoms.old[atom], start)
    whole = start @ np.array(strides(group.cube))
    return Moves(
        group=group,
        round=sends.round[own][order],
        source=source,
        destination=sends.destination[own][order],
        start=start,
        size=extents(group.atoms.boxes[atom]),
        source_element=np.where(source == checkpoint, whole, np.where(relayed, into, out_of)),
        destination_element=into,
        relayed=relayed,
    )


def _elements(pieces: Pieces, piece: IntArray, start: IntArray) -> IntArray:
    """Give the number of the first element of boxes, counted in the shards that they are in."""
    return np.asarray((start - pieces.origins[piece]) @ np.array(strides(pieces.slab)) - pieces.first[piece])


def strides(cube: Cube) -> tuple[int, int, int]:
    """Give how many elements an expert, a row and a column of a buffer of these dimensions are apart."""
    return cube[1] * cube[2], cube[2], 1
