"""Predictions beside measurements: one row a measured quantity."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshwright.catalog.precision import PRECISION_CLASSES, PrecisionClass
from meshwright.planner.accuracy.case import Case, Measured, MemoryKind
from meshwright.planner.accuracy.estimate import Estimate, Predicted
from meshwright.planner.uncertainty import Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quantity of one case.

    measured: in seconds or bytes.
    prediction: all that the cost model says of the case.
    left_out: the same by constants that were fitted without the case's source, where there are any.
    """

    case: Case
    file: str
    quantity: Quantity
    measured: float
    prediction: Predicted
    left_out: Predicted | None

    @property
    def predicted(self) -> float:
        """The quantity as predicted, in seconds or bytes."""
        return _value(self.prediction, self.quantity)

    @property
    def error(self) -> float:
        """Relative error: 0.1 where the prediction is a tenth too high."""
        return self.predicted / self.measured - 1

    @property
    def left_out_error(self) -> float | None:
        """Relative error of the left-out prediction, None where there is none; memory has no fitted constants."""
        if self.left_out is None or self.quantity is not Quantity.STEP_TIME:
            return None
        return _value(self.left_out, self.quantity) / self.measured - 1

    @property
    def trust(self) -> str:
        """The case's trust, or "not told"."""
        return self.case.trust or "not told"

    @property
    def precision_class(self) -> PrecisionClass:
        """The class of the case's precision."""
        return PRECISION_CLASSES[self.case.precision]


def rows_of(pairs: Iterable[tuple[Estimate, Estimate | None]]) -> Iterator[Row]:
    """Give a row for each quantity that was both measured and predicted.

    Args:
        pairs: each estimate with the left-out one of the same case, where there is one.

    """
    for estimate, left_out in pairs:
        if estimate.predicted is not None and estimate.case.measured is not None:
            for quantity, measured in _measured(estimate.case.measured):
                yield Row(
                    case=estimate.case,
                    file=estimate.file,
                    quantity=quantity,
                    measured=measured,
                    prediction=estimate.predicted,
                    left_out=left_out.predicted if left_out else None,
                )


def _measured(measured: Measured) -> Iterator[tuple[Quantity, float]]:
    if measured.step_time_s is not None:
        yield Quantity.STEP_TIME, measured.step_time_s
    if measured.peak_memory_bytes is not None and measured.peak_memory_kind is not None:
        yield Quantity(measured.peak_memory_kind.value), measured.peak_memory_bytes


def _value(prediction: Predicted, quantity: Quantity) -> float:
    if quantity is Quantity.STEP_TIME:
        return prediction.step_time_s
    return prediction.reported_memory_bytes[MemoryKind(quantity.value)]
