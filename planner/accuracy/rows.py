"""Predictions beside measurements: one row a measured quantity."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from meshwright.catalog.precision import Precision
from meshwright.planner.accuracy.case import Case, MemoryKind
from meshwright.planner.accuracy.estimate import Estimate, Predicted


class Quantity(StrEnum):
    """What was measured; memory by who counted it."""

    STEP_TIME = "step_time"
    ALLOCATED = "allocated"
    RESERVED = "reserved"
    NVIDIA_SMI = "nvidia_smi"


class PrecisionClass(StrEnum):
    """Formats that err alike: the narrow ones depend on recipes that tables don't print."""

    WIDE = "32-bit"
    HALF = "16-bit"
    NARROW = "narrower"


PRECISION_CLASSES = {
    Precision.FP32: PrecisionClass.WIDE,
    Precision.BF16: PrecisionClass.HALF,
    Precision.FP16: PrecisionClass.HALF,
    Precision.FP8: PrecisionClass.NARROW,
    Precision.MXFP8: PrecisionClass.NARROW,
    Precision.NVFP4: PrecisionClass.NARROW,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quantity of one case, in seconds or bytes."""

    case: Case
    file: str
    quantity: Quantity
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Relative error: 0.1 where the prediction is a tenth too high."""
        return self.predicted / self.measured - 1

    @property
    def trust(self) -> str:
        """The case's trust, or "not told"."""
        return self.case.trust or "not told"

    @property
    def precision_class(self) -> PrecisionClass:
        """The class of the case's precision."""
        return PRECISION_CLASSES[self.case.precision]


def rows_of(estimates: Iterable[Estimate]) -> Iterator[Row]:
    """Give a row for each quantity that was both measured and predicted."""
    for estimate in estimates:
        if estimate.predicted is not None:
            for quantity, measured, predicted in _quantities(estimate.case, estimate.predicted):
                yield Row(
                    case=estimate.case,
                    file=estimate.file,
                    quantity=quantity,
                    measured=measured,
                    predicted=predicted,
                )


def _quantities(case: Case, predicted: Predicted) -> Iterator[tuple[Quantity, float, float]]:
    measured = case.measured
    if measured is None:
        return
    if measured.step_time_s is not None:
        yield Quantity.STEP_TIME, measured.step_time_s, predicted.step_time_s
    if measured.peak_memory_bytes is not None and measured.peak_memory_kind is not None:
        kind: MemoryKind = measured.peak_memory_kind
        yield Quantity(kind.value), measured.peak_memory_bytes, predicted.peak_memory_bytes[kind]
