"""What a change leaves of a cluster: which devices, in units that stay whole.

A unit is what is joined by something faster than a fabric, mostly a node: ranks of one tensor group lie in one. A unit
that loses a device is left out whole, though its other devices still send what they hold. Where all devices are one
unit, they count one by one.
"""

import re
from dataclasses import dataclass

import numpy as np

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import IntArray
from meshwright.hardware.cluster import cluster_of
from meshwright.planner.plan_schema import Plan

_PLACE = re.compile(r"(node|gpu):([0-9]{1,100})")
_MOST_DEVICES = 131_072
LOSE, ADD, DEVICES = "--lose", "--add", "--devices"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What changes: devices that are lost, by their numbers, and how many are added behind all others.

    released: devices that are to be left out, and can still send what they hold.
    """

    lost: frozenset[int] = frozenset()
    released: frozenset[int] = frozenset()
    added: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What is left.

    units: the devices of each whole unit, [units, devices of a unit], by their numbers before the change; those that
    are added count on from there. stranded: devices that are left of broken units. before: devices before the change.
    """

    units: IntArray
    lost: tuple[int, ...]
    stranded: tuple[int, ...]
    before: int

    @property
    def devices(self) -> int:
        """Devices of whole units."""
        return int(self.units.size)

    @property
    def numbers(self) -> int:
        """A number above all devices'."""
        return max(self.before, int(self.units.max()) + 1)


def change_of(plan: Plan, *, lose: str | None = None, add: str | None = None, devices: int | None = None) -> Change:
    """Read what changes of a plan's cluster: one of three.

    Args:
        plan: whose cluster it is.
        lose: nodes and devices by their numbers: "node:3,gpu:17".
        add: so many of them: "node:2".
        devices: how many there are to be, the first ones.

    Raises InputError where none or several are given, one can't be read, or names what isn't there.

    """
    given = [name for name, value in ((LOSE, lose), (ADD, add), (DEVICES, devices)) if value is not None]
    if len(given) != 1:
        told = f"{' and '.join(given)} are given" if given else "nothing changes"
        raise InputError(told, hint=f"give one of {LOSE} node:3,gpu:17, {ADD} node:2 and {DEVICES} N")
    entry = plan.inputs.cluster.entry
    if lose is not None:
        return Change(lost=frozenset(device for place in lose.split(",") for device in _lost(place, entry)))
    if add is not None:
        return _bounded(Change(added=sum(_added(place, entry) for place in add.split(","))), entry, ADD)
    wanted = devices or 0
    if wanted < 1:
        raise InputError(f"is {wanted}; a plan needs one at least", path=DEVICES)
    grown = max(wanted - entry.devices, 0)
    return _bounded(Change(released=frozenset(range(wanted, entry.devices)), added=grown), entry, DEVICES)


def left_of(plan: Plan, change: Change) -> Left:
    """Give what a change leaves of a plan's cluster.

    Raises InputError where nothing is left, or no unit whole.
    """
    entry = plan.inputs.cluster.entry
    if len(change.lost) == entry.devices and not change.added:
        raise InputError("loses every device; nothing is left to plan for", path=LOSE)
    everything = np.arange(entry.devices + change.added)
    gone = np.isin(everything, np.array(sorted(change.lost | change.released), dtype=np.int64))
    unit = _unit(plan)
    whole = len(everything) // unit
    broken = gone[: whole * unit].reshape(whole, unit).any(axis=1)
    units = everything[: whole * unit].reshape(whole, unit)[~broken]
    if not len(units):
        raise InputError(
            f"leaves no node of {unit} devices whole",
            path=LOSE if change.lost else DEVICES,
            hint="`meshwright plan` makes a plan for fewer devices of one node",
        )
    stranded = np.setdiff1d(everything[~gone], units)
    return Left(
        units=units,
        lost=tuple(sorted(change.lost)),
        stranded=tuple(int(device) for device in stranded),
        before=entry.devices,
    )


def _unit(plan: Plan) -> int:
    entry = plan.inputs.cluster.entry
    joined = cluster_of(entry.model_copy(update={"device": plan.inputs.device.entry})).domain_devices
    return joined if joined < entry.devices else 1


def _bounded(change: Change, entry: ClusterEntry, option: str) -> Change:
    if change.added and entry.devices + change.added > _MOST_DEVICES:
        raise InputError(
            f"makes {entry.devices + change.added:,} devices of {entry.devices:,}; moves are solved for up to "
            f"{_MOST_DEVICES:,}",
            path=option,
            hint="`meshwright plan` plans for more, from a checkpoint",
        )
    return change


def _place(text: str, option: str) -> tuple[str, int]:
    match = _PLACE.fullmatch(text.strip())
    if match is None:
        example = "node:3 or gpu:17" if option == LOSE else "node:2 or gpu:8"
        raise InputError(f"{text.strip()!r:.60} is neither nodes nor devices", path=option, hint=f"such as {example}")
    return match[1], int(match[2])


def _lost(text: str, entry: ClusterEntry) -> range:
    kind, number = _place(text, LOSE)
    size = entry.devices_per_node if kind == "node" else 1
    there = -(-entry.devices // size)
    if number >= there:
        raise InputError(
            f"{kind} {number} isn't there: {entry.name} has those from 0 to {there - 1}",
            path=LOSE,
        )
    return range(number * size, min((number + 1) * size, entry.devices))


def _added(text: str, entry: ClusterEntry) -> int:
    kind, count = _place(text, ADD)
    if not count:
        raise InputError(f"{text.strip()} adds nothing", path=ADD)
    return count * (entry.devices_per_node if kind == "node" else 1)
