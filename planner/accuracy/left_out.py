"""Predictions by constants that never saw what they are compared with.

The catalog's constants were fitted to some of the measurements that it ships, so that errors on those flatter them. For
each source of them the catalog also has constants that were fitted to the other sources only
(`catalog/cross_validation.yaml`).
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from meshwright.catalog.cross_validation import cross_validation
from meshwright.catalog.cross_validation_entry import LeftOutEntry
from meshwright.catalog.lookup import device_named
from meshwright.planner.accuracy.estimate import Estimate, Watch, estimate


def left_out_estimates(estimates: Sequence[Estimate], *, watch: Watch = iter) -> tuple[Estimate | None, ...]:
    """Predict cases again by the constants that were fitted without their source.

    Args:
        estimates: the predictions by the catalog's constants; a source is known by the name of its file.
        watch: given all cases of a source, hands them on one by one; a progress bar does.

    Gives for each estimate another of the same case, in the same order; None where its source isn't the catalog's, and
    where no other source has rows of its device's family, so that nothing was fitted.

    """
    return tuple(
        again
        for file, group in groupby(estimates, key=lambda item: item.file)
        for again in _of_source(Path(file).stem, list(group), watch=watch)
    )


def _of_source(source: str, estimates: Sequence[Estimate], *, watch: Watch) -> Iterable[Estimate | None]:
    left_out = cross_validation().sources.get(source)
    if left_out is None:
        return [None] * len(estimates)
    again = estimate([item.case for item in estimates], watch=watch, overlays=(left_out.overlay,))
    return [item if _is_refitted(item, left_out) else None for item in again]


def _is_refitted(item: Estimate, left_out: LeftOutEntry) -> bool:
    if item.predicted is None:
        return False
    return left_out.refitted.get(device_named(item.case.cluster.device).family, False)
