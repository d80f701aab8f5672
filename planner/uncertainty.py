"""How far to trust a prediction: an interval that holds the measured value nine times of ten.

The logarithm of measured over predicted has, over rows that no constant had seen, a spread that depends on the
quantity, on the precision (recipes of narrow formats aren't printed), on what is known of the inputs and, for step
times, on whether the model is a mixture of experts. The catalog's uncertainty holds the half width w of the interval in
the logarithm for each of those that has enough rows, as a factor exp(w), and for what several share: of what a
prediction is like, that counts which tells the most.

Where nothing measured covers what is predicted, independent errors are added to it:

    w' = sqrt(w^2 + [no device of the family was measured in the precision] u^2 + d (w / 2)^2)

A layout with a practice (practices.py) that no measured step of the family had counts like a family that wasn't
measured: u^2 is added once for either. Here u is the width that predicting each family with the constants of the others
needs, and d how many times the devices of the largest measured step of the family (of any, where it has none) have to
be doubled: each doubling is taken to add half of w. That is of step times. Narrow formats are taken to be no surer than
16 bits, and what is told less of no surer than what is told more of: w is the widest of those, and few rows that
happen to agree don't narrow it. Where the user's own left-out steps are like the prediction, w becomes what
`own_spread.py` makes of both, and they count as measured steps.

Memory hangs on no rate, but on who counts it. A reading is covered where it was read of a device of the family, in the
precision, on as many devices. Elsewhere it borrows the widest w of all readings of memory that are like the prediction;
where none was read of the family in the precision, the widest of any. A reading contains those before it (allocated,
reserved, nvidia_smi), so that its upper end is no surer than theirs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from meshwright.catalog.precision import PRECISION_CLASSES, PrecisionClass
from meshwright.catalog.residuals_entry import ModelKind, ResidualsEntry
from meshwright.catalog.uncertainty_entry import SpreadEntry, UncertaintyEntry
from meshwright.costmodels.job import Job
from meshwright.planner.own_spread import width_with

Spreads = Sequence[SpreadEntry]
EACH_DOUBLING = 0.5


class Knowledge(StrEnum):
    """What is known of the inputs of a prediction: all that matters, some of it inferred, or some of it unknown."""

    TOLD = "told"
    INFERRED = "inferred"
    UNKNOWN = "unknown"

    @property
    def as_sure_as(self) -> tuple["Knowledge", ...]:
        """It, and what tells more: nothing is surer than what tells more."""
        return tuple(Knowledge)[: tuple(Knowledge).index(self) + 1]


class Quantity(StrEnum):
    """What is predicted; memory by who counts it."""

    STEP_TIME = "step_time"
    ALLOCATED = "allocated"
    RESERVED = "reserved"
    NVIDIA_SMI = "nvidia_smi"


# Each contains those before it.
READINGS = (Quantity.ALLOCATED, Quantity.RESERVED, Quantity.NVIDIA_SMI)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """From `low` to `high`, in the unit of what is predicted; it holds the measured value as often as `level` says."""

    low: float
    high: float
    level: float


def interval(
    value: float,
    *,
    quantity: Quantity,
    job: Job,
    knowledge: Knowledge,
    uncertainty: UncertaintyEntry,
    practices: Sequence[str] = (),
) -> Interval:
    """Give the interval of a predicted value, positive, in its unit; `practices` are those of its layout."""
    if quantity is Quantity.STEP_TIME:
        new = not set(practices) <= set(practised_by(job, uncertainty))
        below = above = _width(job, knowledge, uncertainty, new=new)
    else:
        widths = _reading_widths(job, knowledge, uncertainty)
        contained = READINGS[: READINGS.index(quantity) + 1]
        below, above = widths[quantity], max(widths[each] for each in contained)
    return Interval(low=value * math.exp(-below), high=value * math.exp(above), level=uncertainty.level)


def practised_by(job: Job, uncertainty: UncertaintyEntry) -> tuple[str, ...]:
    """Give the practices that measured steps of the job's device family had."""
    return uncertainty.practised.get(job.cluster.device.family, ())


def upper_factors(job: Job, uncertainty: UncertaintyEntry) -> tuple[float, float]:
    """Give by how much a step may take longer than predicted, whose inputs are told: usually, and by a new practice."""
    usual, new = (_width(job, Knowledge.TOLD, uncertainty, new=new) for new in (False, True))
    return math.exp(usual), math.exp(new)


def reasons(job: Job, uncertainty: UncertaintyEntry, practices: Sequence[str] = ()) -> tuple[str, ...]:
    """Say why an interval is wider than that of measured machines, a sentence each; empty where it isn't."""
    precision = PRECISION_CLASSES[job.precision]
    largest = _largest_measured(job, precision, uncertainty)
    if largest is None:
        return (f"no {job.cluster.device.family} device was measured in {precision} formats with all inputs told",)
    new = [practice for practice in practices if practice not in practised_by(job, uncertainty)]
    return (
        *_few_alike(job, precision, uncertainty),
        *_larger(job.cluster.devices, largest),
        *(f"no measured step of the {job.cluster.device.family} family had {practice}" for practice in new),
    )


def _few_alike(job: Job, precision: PrecisionClass, uncertainty: UncertaintyEntry) -> Iterator[str]:
    of_time = [spread for spread in uncertainty.spreads if spread.quantity == Quantity.STEP_TIME]
    like = _like(of_time, precision, Knowledge.TOLD, job.model.kind)
    if all(spread.inputs is None for spread in like) and _own(job, precision) is None:
        kind = "mixtures of experts" if job.model.has_experts else "dense models"
        yield f"few steps of {kind} were measured with all inputs told"


def _larger(devices: int, largest: int) -> Iterator[str]:
    if devices > largest:
        yield f"{devices:,} devices are more than the {largest:,} that a measured step of its family had"


def width_of(
    quantity: Quantity, *, precision: PrecisionClass, knowledge: Knowledge, model: ModelKind, spreads: Spreads
) -> float:
    """Give the half width w of what is like that, in no narrower formats and told no less. Takes a spread at least."""
    of_quantity = [spread for spread in spreads if spread.quantity == quantity]
    formats = {precision, PrecisionClass.HALF} if precision is PrecisionClass.NARROW else {precision}
    alike = product(formats, knowledge.as_sure_as)
    return _widest([each for like, told in alike for each in _like(of_quantity, like, told, model)])


def _width(job: Job, knowledge: Knowledge, uncertainty: UncertaintyEntry, *, new: bool) -> float:
    """Give the half width of a step time."""
    precision = PRECISION_CLASSES[job.precision]
    largest = _largest_measured(job, precision, uncertainty)
    width = _catalog_width(Quantity.STEP_TIME, job, knowledge, uncertainty)
    own = _own(job, precision)
    if own is not None:
        told = _catalog_width(Quantity.STEP_TIME, job, Knowledge.TOLD, uncertainty)
        of_own = width_with(own, width=told, level=uncertainty.level)
        width = of_own if knowledge is Knowledge.TOLD else max(width, of_own)
    unmeasured = math.log(uncertainty.unmeasured) if largest is None or new else 0.0
    devices = largest or max((size for sizes in uncertainty.covered.values() for size in sizes.values()), default=1)
    doublings = math.log2(max(job.cluster.devices / devices, 1.0))
    return math.sqrt(width**2 + unmeasured**2 + doublings * (EACH_DOUBLING * width) ** 2)


def _reading_widths(job: Job, knowledge: Knowledge, uncertainty: UncertaintyEntry) -> Mapping[Quantity, float]:
    """Give the half width of each reading of memory, whatever it contains."""
    most = {reading: _most_read(reading, job, uncertainty) for reading in READINGS}
    if not any(most.values()):
        widest = _widest([spread for spread in uncertainty.spreads if spread.quantity in READINGS])
        return dict.fromkeys(READINGS, widest)
    widths = {reading: _catalog_width(reading, job, knowledge, uncertainty) for reading in READINGS}
    borrowed = max(widths.values())
    return {reading: width if most[reading] >= job.cluster.devices else borrowed for reading, width in widths.items()}


def _most_read(reading: Quantity, job: Job, uncertainty: UncertaintyEntry) -> int:
    """Give of how many devices at once a reading was taken, of the job's family and precision; 0 where of none."""
    by_family = uncertainty.read.get(reading, {})
    return by_family.get(job.cluster.device.family, {}).get(PRECISION_CLASSES[job.precision], 0)


def _catalog_width(quantity: Quantity, job: Job, knowledge: Knowledge, uncertainty: UncertaintyEntry) -> float:
    return width_of(
        quantity,
        precision=PRECISION_CLASSES[job.precision],
        knowledge=knowledge,
        model=job.model.kind,
        spreads=uncertainty.spreads,
    )


def _like(spreads: Spreads, precision: PrecisionClass, knowledge: Knowledge, model: ModelKind) -> Spreads:
    """Give the spread that tells the most of what is like this; all where none is."""
    wanted = (precision, knowledge, model)
    told = [(spread.precision, spread.inputs, spread.model) for spread in spreads]
    fitting = [
        (sum(value is not None for value in values), spread)
        for values, spread in zip(told, spreads, strict=True)
        if all(value in {None, want} for value, want in zip(values, wanted, strict=True))
    ]
    return [max(fitting, key=lambda each: each[0])[1]] if fitting else spreads


def _own(job: Job, precision: PrecisionClass) -> ResidualsEntry | None:
    """Give the residuals of the user's own steps that are like the job."""
    like = (each for each in job.cluster.device.residuals if each.precision is precision)
    return next((each for each in like if each.model is job.model.kind), None)


def _widest(spreads: Spreads) -> float:
    return max(math.log(spread.factor) for spread in spreads)


def _largest_measured(job: Job, precision: PrecisionClass, uncertainty: UncertaintyEntry) -> int | None:
    by_family: Mapping[PrecisionClass, int] = uncertainty.covered.get(job.cluster.device.family, {})
    own = [each.devices for each in job.cluster.device.residuals if each.precision is precision]
    return max((*own, *([by_family[precision]] if precision in by_family else [])), default=None)
