"""From one plan's state to another's, or to and from a consolidated checkpoint: what moves, and what that takes.

The state of a training job is one function of tensor, state and element; a plan says which ranks hold which of its
elements. Resharding is solved as intersections: an atom is what a piece of the old plan and one of the new plan have in
common (`atoms.py`), and `delivery.py` brings each to the ranks that want it. A rank of the new plan runs where the old
plan's rank of the same number does, unless told otherwise, and keeps what it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import IntArray
from meshwright.costmodels.transformer import Transformer
from meshwright.planner.resharding.delivery import Pairs, Round, delivered, pairs_of
from meshwright.planner.resharding.groups import Group, Side, groups_of
from meshwright.planner.resharding.machines import Machines


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What crosses one tier, in bytes and seconds; None where nothing is known of the bandwidth of a checkpoint.

    busiest_sender_bytes: what the busiest device sends; no way of choosing senders brings it below
    least_busiest_bytes.
    """

    tier: str
    bytes: int
    busiest_sender_bytes: int
    least_busiest_bytes: float
    busiest_receiver_bytes: int
    time_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshard:
    """What moves between two plans.

    starts: the number of each group's first atom, and of all atoms. kept: which device keeps which atom. held_bytes: of
    all that the new side holds, copies included. kept_bytes: of those, what is there already. lost_bytes: what no
    device holds any more, so that it comes from a checkpoint. checkpoint: the number that stands for it among devices.
    """

    groups: tuple[Group, ...]
    starts: IntArray
    rounds: tuple[Round, ...]
    traffic: tuple[Traffic, ...]
    kept: Pairs
    held_bytes: int
    kept_bytes: int
    lost_bytes: int
    checkpoint: int

    @property
    def moved_bytes(self) -> int:
        """Bytes that are sent, over all tiers."""
        return sum(each.bytes for each in self.traffic)

    @property
    def time_s(self) -> float | None:
        """Seconds of all rounds, one after another."""
        times = [each.time_s for each in self.traffic if each.time_s is not None]
        return sum(times) if len(times) == len(self.traffic) else None


def resharded(
    model: Transformer,
    old: Side,
    new: Side,
    machines: Machines,
    *,
    old_devices: IntArray,
    new_devices: IntArray,
    balanced: bool = True,
) -> Reshard:
    """Solve what moves of a model's state from one side to another.

    Args:
        model: whose state it is.
        old: where it is; None for a consolidated checkpoint.
        new: where it is to be; None for a checkpoint.
        machines: between which it moves.
        old_devices: the device of each rank of the old plan, negative where it is lost; what is then on none comes from
            a checkpoint.
        new_devices: the device of each rank of the new plan.
        balanced: find the least busy senders, instead of sharing each atom's sends out evenly.

    Raises SolverFailed where the linear program of who sends has no answer.

    """
    groups = tuple(groups_of(model, old, new, storage=machines.storage))
    starts = np.cumsum([0, *(len(group.atoms) for group in groups)])
    atom_bytes = np.concatenate([group.atom_bytes for group in groups])
    first = starts[:-1].tolist()
    had = [group.old.holders[group.atoms.old] for group in groups]
    wanted = [group.new.holders[group.atoms.new] for group in groups]
    have = _pairs(tuple(zip(first, had, strict=True)), _devices(old, old_devices, machines), machines)
    want = _pairs(tuple(zip(first, wanted, strict=True)), _devices(new, new_devices, machines), machines)
    have, lost = _with_checkpoint(have, len(atom_bytes), machines)
    rounds = delivered(have, want, atom_bytes, machines.groups, balanced=balanced)
    kept = Pairs(keys=np.intersect1d(want.keys, have.keys, assume_unique=True), devices=want.devices)
    return Reshard(
        groups=groups,
        starts=starts,
        rounds=rounds,
        traffic=tuple(_traffic(each, atom_bytes, machines) for each in rounds),
        kept=kept,
        held_bytes=int(atom_bytes[want.atom].sum()),
        kept_bytes=int(atom_bytes[kept.atom].sum()),
        lost_bytes=int(atom_bytes[lost].sum()) if old is not None else 0,
        checkpoint=machines.storage,
    )


def _devices(side: Side, devices: IntArray, machines: Machines) -> IntArray:
    """Give the device of each rank; the checkpoint's own number stands for itself."""
    if side is not None:
        return devices
    return np.arange(machines.storage + 1)


def _pairs(held: Sequence[tuple[int, IntArray]], devices: IntArray, machines: Machines) -> Pairs:
    """Pair atoms with the devices that hold them, those that are lost left out."""
    atoms, found = [], []
    for start, holders in held:
        on = devices[holders]
        kept = on >= 0
        atoms.append((np.zeros_like(on) + start + np.arange(len(on))[:, np.newaxis])[kept])
        found.append(on[kept])
    return pairs_of(np.concatenate(atoms), np.concatenate(found), devices=machines.numbers)


def _with_checkpoint(have: Pairs, atoms: int, machines: Machines) -> tuple[Pairs, IntArray]:
    """Add what only a checkpoint has, and give the numbers of those atoms."""
    there = np.zeros(atoms, dtype=bool)
    there[have.atom] = True
    lost = np.flatnonzero(~there)
    keys = np.sort(np.concatenate([have.keys, lost * have.devices + machines.storage]))
    return Pairs(keys=keys, devices=have.devices), lost


def _traffic(found: Round, atom_bytes: IntArray, machines: Machines) -> Traffic:
    sizes = atom_bytes[found.atom]
    sent = np.bincount(found.source, weights=sizes)
    received = np.bincount(found.destination, weights=sizes)
    return Traffic(
        tier=machines.name(found.tier),
        bytes=int(sizes.sum()),
        busiest_sender_bytes=round(float(sent.max())),
        least_busiest_bytes=found.least_busiest_bytes,
        busiest_receiver_bytes=round(float(received.max())),
        time_s=machines.seconds(found.tier, found.source, found.destination, sizes),
    )
