"""How far to trust a prediction: an interval that holds the measured value nine times of ten.

The logarithm of measured over predicted has, over rows that no constant had seen, a spread that depends on the
quantity, on the precision (recipes of narrow formats aren't printed) and on what is known of the inputs. The catalog's
uncertainty holds the half width w of the interval in the logarithm for each of those, as a factor exp(w).

Where nothing measured covers what is predicted, independent errors are added to it:

    w' = sqrt(w^2 + [no device of the family was measured in the precision] u^2 + d (w / 2)^2)

where u is the width that predicting each family with the constants of the others needs, and d how many times the
devices of the largest measured step of the family (of any, where it has none) have to be doubled: each doubling is
taken to add half of w. That is of step times. Memory hangs on no rate: where the family wasn't measured its interval is
the widest of its quantity. Narrow formats are taken to be no surer than 16 bits.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from meshwright.catalog.precision import PRECISION_CLASSES, PrecisionClass
from meshwright.catalog.uncertainty_entry import SpreadEntry, UncertaintyEntry
from meshwright.costmodels.job import Job

EACH_DOUBLING = 0.5


class Knowledge(StrEnum):
    """What is known of the inputs of a prediction: all that matters, some of it inferred, or some of it unknown."""

    TOLD = "told"
    INFERRED = "inferred"
    UNKNOWN = "unknown"


class Quantity(StrEnum):
    """What is predicted; memory by who counts it."""

    STEP_TIME = "step_time"
    ALLOCATED = "allocated"
    RESERVED = "reserved"
    NVIDIA_SMI = "nvidia_smi"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """From `low` to `high`, in the unit of what is predicted; it holds the measured value as often as `level` says."""

    low: float
    high: float
    level: float


def interval(
    value: float, *, quantity: Quantity, job: Job, knowledge: Knowledge, uncertainty: UncertaintyEntry
) -> Interval:
    """Give the interval of a predicted value, positive, in its unit."""
    width = _width(quantity, job, knowledge, uncertainty)
    return Interval(low=value * math.exp(-width), high=value * math.exp(width), level=uncertainty.level)


def reasons(job: Job, uncertainty: UncertaintyEntry) -> tuple[str, ...]:
    """Say why an interval is wider than that of measured machines, a sentence each; empty where it isn't."""
    precision = PRECISION_CLASSES[job.precision]
    largest = _largest_measured(job, precision, uncertainty)
    if largest is None:
        return (f"no {job.cluster.device.family} device was measured in {precision} formats with all inputs told",)
    if job.cluster.devices > largest:
        return (
            f"{job.cluster.devices:,} devices are more than the {largest:,} that a measured step of its family had",
        )
    return ()


def _width(quantity: Quantity, job: Job, knowledge: Knowledge, uncertainty: UncertaintyEntry) -> float:
    precision = PRECISION_CLASSES[job.precision]
    largest = _largest_measured(job, precision, uncertainty)
    of_quantity = [spread for spread in uncertainty.spreads if spread.quantity == quantity]
    if quantity is not Quantity.STEP_TIME:
        return _widest(of_quantity if largest is None else _like(of_quantity, precision, knowledge))
    width = _widest(_like(of_quantity, precision, knowledge))
    unmeasured = math.log(uncertainty.unmeasured) if largest is None else 0.0
    devices = largest or max((size for sizes in uncertainty.covered.values() for size in sizes.values()), default=1)
    doublings = math.log2(max(job.cluster.devices / devices, 1.0))
    return math.sqrt(width**2 + unmeasured**2 + doublings * (EACH_DOUBLING * width) ** 2)


def _like(spreads: Sequence[SpreadEntry], precision: PrecisionClass, knowledge: Knowledge) -> Sequence[SpreadEntry]:
    """Give the spreads of rows like this, for narrow formats those of 16 bits too; all where no row was like it."""
    like = [spread for spread in spreads if spread.precision is precision and spread.inputs == knowledge]
    wider = [spread for spread in spreads if spread.precision is PrecisionClass.HALF and spread.inputs == knowledge]
    return (like + wider if precision is PrecisionClass.NARROW else like) if like else spreads


def _widest(spreads: Sequence[SpreadEntry]) -> float:
    return max(math.log(spread.factor) for spread in spreads)


def _largest_measured(job: Job, precision: PrecisionClass, uncertainty: UncertaintyEntry) -> int | None:
    by_family: Mapping[PrecisionClass, int] = uncertainty.covered.get(job.cluster.device.family, {})
    return by_family.get(precision)
