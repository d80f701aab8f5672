"""How far off left-out training steps are, by class of formats and kind of model: what an overlay says of its trust."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from meshwright.catalog.precision import PrecisionClass
from meshwright.catalog.residuals_entry import ModelKind, ResidualsEntry
from meshwright.costmodels.layout import FloatArray
from meshwright.planner.calibration.evidence import Evidence, StepClass
from meshwright.planner.calibration.fit import weights_of

DIGITS = 4


def residuals_of(evidence: Sequence[Evidence], left_out: FloatArray) -> tuple[ResidualsEntry, ...]:
    """Give the residuals of each class that has left-out steps, in a fixed order.

    Args:
        evidence: all of it; pieces of work that were timed alone don't tell how far off steps are, and don't count.
        left_out: log(predicted / measured) of each row by constants fitted without it, nan where there are none, (n,).

    """
    return tuple(_entries(evidence, left_out))


def _entries(evidence: Sequence[Evidence], left_out: FloatArray) -> Iterator[ResidualsEntry]:
    steps: list[StepClass | None] = [each for part in evidence for each in part.steps or (None,) * len(part)]
    rows: dict[tuple[PrecisionClass, ModelKind], list[int]] = defaultdict(list)
    for index, (step, ratio) in enumerate(zip(steps, left_out, strict=True)):
        if step is not None and np.isfinite(ratio):
            rows[step.precision, step.model].append(index)
    counts = weights_of(evidence) ** 2
    for (precision, model), indices in sorted(rows.items()):
        square = np.average(left_out[indices] ** 2, weights=counts[indices])
        yield ResidualsEntry(
            precision=precision,
            model=model,
            spread=round(float(np.sqrt(square)), DIGITS),
            rows=len(indices),
            counts_as=round(float(counts[indices].sum()), DIGITS),
            devices=max(step.devices for index in indices if (step := steps[index]) is not None),
        )
