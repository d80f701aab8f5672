"""Tensors and states that both plans cut and place alike: what moves of one, moves of all of them in the same way."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from meshwright.costmodels.layout import IntArray
from meshwright.costmodels.transformer import Transformer
from meshwright.planner.resharding.atoms import Atoms, atoms_of
from meshwright.planner.resharding.boxes import Cube, volumes
from meshwright.planner.resharding.pieces import Fold, Pieces, degrees, fold_of, pieces_of, whole
from meshwright.planner.resharding.placement import Placement, Stages
from meshwright.planner.resharding.states import State
from meshwright.planner.resharding.tensors import ModelTensor, tensors_of

# What one message holds at most, about: so that ranks that share the work of sending can share it evenly, and no more
# memory than this is needed beside the state itself.
MESSAGE_BYTES = 2**26

Side = Placement | None
"""A plan's placement, or None for a consolidated checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tensors of one shape and cut on the same stages, and states with the same shards.

    cube: the dimensions of each, folded. atoms: what moves, of each tensor and state. old, new: the pieces of both
    sides.
    """

    tensors: tuple[ModelTensor, ...]
    states: tuple[State, ...]
    cube: Cube
    old: Pieces
    new: Pieces
    atoms: Atoms

    @property
    def element_bytes(self) -> int:
        """Bytes of one element in all states."""
        return sum(state.element_bytes for state in self.states)

    @property
    def atom_bytes(self) -> IntArray:
        """Bytes of each atom in all tensors and states."""
        return volumes(self.atoms.boxes) * self.element_bytes * len(self.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alike:
    """What tensors of a group have in common; states by name, shards of the old and the new plan."""

    shape: tuple[int, ...]
    split: str
    old_stages: Stages
    new_stages: Stages
    states: tuple[str, ...]
    shards: tuple[int, int]


def groups_of(model: Transformer, old: Side, new: Side, *, storage: int) -> Iterator[Group]:
    """Give the groups of a model's tensors between two sides, of which a checkpoint is device `storage`."""
    states = {state.name: state for state in _states(old, new)}
    members: defaultdict[_Alike, list[ModelTensor]] = defaultdict(list)
    for tensor in tensors_of(model):
        for shards, names in _bundles(tensor, tuple(states.values()), old, new).items():
            alike = _Alike(
                shape=tensor.shape,
                split=tensor.split,
                old_stages=() if old is None else old.stages_of(tensor),
                new_stages=() if new is None else new.stages_of(tensor),
                states=names,
                shards=shards,
            )
            members[alike].append(tensor)
    known: dict[object, Atoms] = {}
    for alike, tensors in members.items():
        own = tuple(states[name] for name in alike.states)
        yield _group(tensors, own, alike, old, new, storage=storage, known=known)


def _states(old: Side, new: Side) -> Sequence[State]:
    """Give the states of both sides; a checkpoint, which is written between steps, has no gradients."""
    given = old or new
    if given is None:
        return ()
    return [state for state in given.states if state.name != "gradient" or (old is not None and new is not None)]


def _bundles(
    tensor: ModelTensor, states: Sequence[State], old: Side, new: Side
) -> dict[tuple[int, int], tuple[str, ...]]:
    bundles: defaultdict[tuple[int, int], tuple[str, ...]] = defaultdict(tuple)
    for state in states:
        shards = [1 if side is None else side.shards(tensor, state) for side in (old, new)]
        bundles[shards[0], shards[1]] += (state.name,)
    return dict(bundles)


def _group(
    tensors: list[ModelTensor],
    states: tuple[State, ...],
    alike: _Alike,
    old: Side,
    new: Side,
    *,
    storage: int,
    known: dict[object, Atoms],
) -> Group:
    """Make a group; atoms, which don't depend on the stages that hold them, are made once and `known` from then on."""
    first = tensors[0]
    fold = fold_of(first, [degrees(first, side) for side in (old, new) if side is not None])
    cube = fold.cube(first.cube)
    before = _pieces(first, old, alike.shards[0], fold, alike.old_stages, storage=storage)
    after = _pieces(first, new, alike.shards[1], fold, alike.new_stages, storage=storage)
    each = sum(state.element_bytes for state in states)
    key = (first.shape, first.split, alike.shards, each)
    if key not in known:
        known[key] = atoms_of(before, after, rows=cube[1], most=MESSAGE_BYTES // each)
    return Group(tensors=tuple(tensors), states=states, cube=cube, old=before, new=after, atoms=known[key])


def _pieces(tensor: ModelTensor, side: Side, shards: int, fold: Fold, stages: Stages, *, storage: int) -> Pieces:
    if side is None:
        return whole(tensor, fold, holder=storage)
    return pieces_of(tensor, side, shards=shards, fold=fold, stages=stages)
