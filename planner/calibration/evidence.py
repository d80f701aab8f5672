"""Evidence: measured seconds beside a function that predicts them from candidate constants.

All that `meshwright calibrate` learns from comes as evidence, whoever measured it: training steps (`case_evidence.py`)
or timed pieces of work (`timing_evidence.py`), such as the readers of users' files give.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.catalog.precision import PrecisionClass
from meshwright.catalog.residuals_entry import ModelKind
from meshwright.costmodels.layout import FloatArray

Predict = Callable[[OverlayEntry], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepClass:
    """What sets the errors of training steps apart, and how many devices one ran on."""

    precision: PrecisionClass
    model: ModelKind
    devices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one source measured, which counts together and is left out together.

    label: the source, for people and for cross-validation (a file's name).
    places: what each row is, for people ("runs.yaml: case a"), of length n.
    measured_s: the measured seconds, positive, of shape (n,).
    predict: the predicted seconds of the same rows, of shape (n,), with the figures of an overlay laid over those of
    the catalog. It is a pure function: the same overlay gives the same seconds.
    confidence: how much each row counts beside the others of its source, of shape (n,); None where they are alike.
    entries: what an overlay must name to change the predictions, as (section, name); None where it may be anything.
    Evidence of the same label is of one source, parted by its entries.
    steps: what each row is a training step of, of length n; None where they are pieces of work that were timed alone.
    kind: what was measured, where a source measured things that err apart from each other: products, copies.
    """

    label: str
    places: tuple[str, ...]
    measured_s: FloatArray
    predict: Predict
    confidence: FloatArray | None = None
    entries: frozenset[tuple[str, str]] | None = None
    steps: tuple[StepClass, ...] | None = None
    kind: str = ""

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.measured_s)


def rows_by_kind(evidence: Iterable[Evidence]) -> Counter[tuple[str, str]]:
    """Count the rows of each kind of each source, by (label, kind)."""
    rows: Counter[tuple[str, str]] = Counter()
    for each in evidence:
        rows[each.label, each.kind] += len(each)
    return rows


def rows_by_label(evidence: Iterable[Evidence]) -> Counter[str]:
    """Count the rows of each source, in the order in which they come."""
    rows: Counter[str] = Counter()
    for each in evidence:
        rows[each.label] += len(each)
    return rows
