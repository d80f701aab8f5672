"""Who sends what to whom: every atom to every device that wants it, over slow tiers as little as can be.

Tiers nest: an instance of tier l is made of instances of tier l - 1, the innermost of single devices, and the outermost
joins all; a consolidated checkpoint is another instance beside it, behind a tier of its own. An atom has to enter each
instance that wants it and has no copy, once at least. It does so exactly once here: from the slowest tier to the
fastest, each instance of tier l - 1 without a copy gets one from its own instance of tier l, and hands it on inside. So
the bytes over every tier are the least that any way of moving, handing on included, can do with.

A round is a tier: what is sent in one is held by its sender when the round begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import BoolArray, IntArray
from meshwright.planner.resharding.sources import even_quotas, least_busy_quotas, picked, sets_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The transfers of one tier, by number of the atom, source and destination device.

    relayed: the source has it since an earlier round. least_busiest_bytes: what the busiest sender sends at the least.
    """

    tier: int
    atom: IntArray
    source: IntArray
    destination: IntArray
    relayed: BoolArray
    least_busiest_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Atoms and devices, one pair a number, ascending: atom x devices + device."""

    keys: IntArray
    devices: int

    @property
    def atom(self) -> IntArray:
        """The atom of each pair."""
        return self.keys // self.devices

    @property
    def device(self) -> IntArray:
        """The device of each pair."""
        return self.keys % self.devices

    def instances(self, group: int) -> IntArray:
        """Give each pair's atom and instance of a tier of so many devices as one number, ascending."""
        return self.atom * self.devices + self.device // group


def pairs_of(atom: IntArray, device: IntArray, *, devices: int) -> Pairs:
    """Pair atoms with devices, numbered below `devices`, each pair given once."""
    return Pairs(keys=np.sort(atom * devices + device, kind="stable"), devices=devices)


def delivered(
    have: Pairs, want: Pairs, atom_bytes: IntArray, groups: Sequence[int], *, balanced: bool = True
) -> tuple[Round, ...]:
    """Give the rounds that bring each wanted atom to its device.

    Args:
        have: who has which atom.
        want: who wants which.
        atom_bytes: of each atom.
        groups: devices of an instance of each tier, innermost first; the last one joins all that hold or want anything.
        balanced: find the least busy senders, instead of sharing each atom's sends out evenly.

    """
    rounds: list[Round] = []
    first = have
    for tier in range(len(groups) - 1, -1, -1):
        inner = groups[tier - 1] if tier else 1
        found = _round(first, have, want, atom_bytes, tier=tier, groups=(inner, groups[tier]), balanced=balanced)
        if found is not None:
            rounds.append(found)
            have = Pairs(keys=_merged(have.keys, found.atom * have.devices + found.destination), devices=have.devices)
    return tuple(rounds)


def _round(
    first: Pairs, have: Pairs, want: Pairs, atom_bytes: IntArray, *, tier: int, groups: tuple[int, int], balanced: bool
) -> Round | None:
    inner, outer = groups
    lacking = want.keys[~_among(want.instances(inner), have.instances(inner))]
    if not len(lacking):
        return None
    entered = Pairs(keys=lacking, devices=want.devices)
    low, high = _runs(entered.instances(inner))
    sizes = atom_bytes[entered.atom[low]]
    takers = sets_of(low, high, entered.device, sizes)
    entry = low + picked(takers, even_quotas(takers), sizes)
    atom, destination = entered.atom[entry], entered.device[entry]
    instance, there = atom * have.devices + destination // outer, have.instances(outer)
    low, high = np.searchsorted(there, instance, side="left"), np.searchsorted(there, instance, side="right")
    givers = sets_of(low, high, have.device, sizes)
    quotas, busiest = least_busy_quotas(givers) if balanced else (even_quotas(givers), 0.0)
    sender = low + picked(givers, quotas, sizes)
    return Round(
        tier=tier,
        atom=atom,
        source=have.device[sender],
        destination=destination,
        relayed=~_among(have.keys[sender], first.keys),
        least_busiest_bytes=busiest,
    )


def _among(values: IntArray, known: IntArray) -> BoolArray:
    """Tell which values are among known ones, which ascend."""
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    return np.asarray(known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values)


def _runs(values: IntArray) -> tuple[IntArray, IntArray]:
    """Give where runs of the same value begin and end."""
    low = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return low, np.append(low[1:], len(values))


def _merged(first: IntArray, second: IntArray) -> IntArray:
    return np.sort(np.concatenate([first, second]), kind="stable")
