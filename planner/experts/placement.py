"""A placement of experts, and how good it is."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray

EMPTY = -1
# Loads that differ by less are equal: sums of shares are rounded.
EQUAL = 1e-9


class Objective(StrEnum):
    """What is made small: the largest device load, the tokens that leave their device or node, or both."""

    BALANCE = "balance"
    TRAFFIC = "traffic"
    BOTH = "both"


class Dispatch(StrEnum):
    """Which replica of an expert a token goes to.

    equal-split: any, all alike. locality-first: one on its device, else one on its node, else any.
    """

    EQUAL_SPLIT = "equal-split"
    LOCALITY_FIRST = "locality-first"


class Status(StrEnum):
    """optimal: no placement has a better objective. feasible: it keeps all limits; the gap says what may be missing."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """Which expert each slot holds, and what follows from it.

    placement: experts [layers, slots], the slots of device 0 first; EMPTY where a slot holds none. Devices 0, 1, ...
    are those of node 0 first.
    max_over_mean, lower_bound: largest device load over the mean [layers], and what it can't be below.
    cross_device, cross_node: tokens whose expert is on another device, or node, than they come from, over all; None
    where the routing doesn't say where they come from. cross_bound: what the fraction that the objective asks for,
    cross_node on several nodes, can't be below; None where nothing is known.
    filled: what engines that leave no slot empty get for it [layers, slots]: with more copies, also two on a device.
    filled_over_mean: its largest device load over the mean [layers]. Both None where no slot is empty.
    moved: experts that devices hold and that they didn't hold before; None without a previous placement.
    seconds: how long it took. stopped: whether it stopped improving for the time limit.
    """

    placement: IntArray
    devices: int
    nodes: int
    objective: Objective
    dispatch: Dispatch
    max_over_mean: FloatArray
    lower_bound: FloatArray
    cross_device: float | None = None
    cross_node: float | None = None
    cross_bound: float | None = None
    filled: IntArray | None = None
    filled_over_mean: FloatArray | None = None
    moved: int | None = None
    seconds: float = 0.0
    stopped: bool = False
    method: str
    status: Status

    @property
    def gap(self) -> FloatArray:
        """By how much the largest load may be above the least possible, relative [layers]."""
        gap: FloatArray = np.maximum(self.max_over_mean / self.lower_bound - 1, 0.0)
        return np.where(gap < EQUAL, 0.0, gap)

    @property
    def without_empty(self) -> IntArray:
        """The experts [layers, slots] for engines that leave no slot empty."""
        return self.placement if self.filled is None else self.filled

    @property
    def slots(self) -> int:
        """Slots of all devices together."""
        return int(self.placement.shape[1])

    @property
    def by_device(self) -> IntArray:
        """Experts [layers, devices, slots of a device]."""
        return self.placement.reshape(len(self.placement), self.devices, -1)

    def overall(self) -> dict[str, float]:
        """Give max_over_mean, lower_bound and gap, each averaged over the layers."""
        averaged = {"max_over_mean": self.max_over_mean, "lower_bound": self.lower_bound, "gap": self.gap}
        return {name: float(values.mean()) for name, values in averaged.items()}

    def document(self) -> dict[str, Any]:
        """Give everything but the seconds as plain values, for JSON."""
        return {
            "devices": self.devices,
            "nodes": self.nodes,
            "slots": self.slots,
            "objective": str(self.objective),
            "dispatch": str(self.dispatch),
            "placement": self.placement.tolist(),
            **{
                name: _by_layer(values)
                for name, values in (
                    ("max_over_mean", self.max_over_mean),
                    ("lower_bound", self.lower_bound),
                    ("gap", self.gap),
                )
            },
            "filled": None if self.filled is None else self.filled.tolist(),
            "filled_over_mean": None if self.filled_over_mean is None else _by_layer(self.filled_over_mean),
            "cross_device": self.cross_device,
            "cross_node": self.cross_node,
            "cross_bound": self.cross_bound,
            "moved": self.moved,
            "method": self.method,
            "stopped": self.stopped,
            "status": str(self.status),
        }


def _by_layer(values: FloatArray) -> dict[str, Any]:
    return {"overall": float(values.mean()), "layers": values.tolist()}
