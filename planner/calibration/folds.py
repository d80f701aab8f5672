"""Cross-validation: how far off rows are that the constants weren't fitted to.

A source is left out whole where the other sources tell of at least half of the constants that its predictions depend
on. Else its own rows are all that is known of them, and they are left out in fifths, every fifth row at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import compress

import numpy as np

from meshwright.costmodels.layout import FloatArray
from meshwright.planner.calibration.constants import Constant
from meshwright.planner.calibration.evidence import Evidence, rows_by_label
from meshwright.planner.calibration.fit import Fit, corrected, weights_of
from meshwright.planner.calibration.linearised import Mask, log_ratio

FOLDS = 5
CORRECTIONS = 2
FELT = 1e-3


class LeftOut(StrEnum):
    """What was left out at once."""

    WHOLE = "whole"
    FIFTHS = "in fifths"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One part of a source that is left out: a mask of all rows, (n,)."""

    label: str
    left_out: LeftOut
    rows: Mask


def folds_of(evidence: Sequence[Evidence], found: Fit) -> Iterator[Fold]:
    """Give what to leave out, source after source; nothing of a source that is one row and alone."""
    labels = np.array([each.label for each in evidence for _ in each.places])
    felt = np.abs(found.near.jacobian) > FELT
    for label in rows_by_label(evidence):
        own = labels == label
        needed, elsewhere = felt[own].any(axis=0), felt[~own].any(axis=0)
        if not own.all() and 2 * (needed & elsewhere).sum() >= needed.sum():
            yield Fold(label=label, left_out=LeftOut.WHOLE, rows=own)
        elif own.sum() > 1:
            number = np.cumsum(own) - 1
            for fold in range(min(FOLDS, int(own.sum()))):
                yield Fold(label=label, left_out=LeftOut.FIFTHS, rows=own & (number % FOLDS == fold))


def log_ratio_without(
    fold: Fold, evidence: Sequence[Evidence], constants: Sequence[Constant], found: Fit
) -> FloatArray:
    """Give log(predicted / measured) of the rows of a fold, by constants that were fitted without them."""
    rest = list(_rows_of(evidence, ~fold.rows))
    near = corrected(rest, constants, found.near.rows(~fold.rows), weights_of(rest), corrections=CORRECTIONS)
    return log_ratio(list(_rows_of(evidence, fold.rows)), constants, near.at)


def _rows_of(evidence: Sequence[Evidence], rows: Mask) -> Iterator[Evidence]:
    """Give evidence of some of the rows only."""
    first = 0
    for each in evidence:
        kept = rows[first : first + len(each)]
        first += len(each)
        if kept.all():
            yield each
        elif kept.any():
            yield _some(each, kept)


def _some(evidence: Evidence, kept: Mask) -> Evidence:
    return replace(
        evidence,
        places=tuple(compress(evidence.places, kept)),
        measured_s=evidence.measured_s[kept],
        predict=lambda overlay: evidence.predict(overlay)[kept],
        confidence=None if evidence.confidence is None else evidence.confidence[kept],
        steps=None if evidence.steps is None else tuple(compress(evidence.steps, kept)),
    )
