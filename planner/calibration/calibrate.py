"""Calibration: constants fitted to what files say of one device, what moved, and how right that is on left-out rows."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from meshwright.catalog.errors import InputError
from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.catalog.residuals_entry import ResidualsEntry
from meshwright.costmodels.layout import FloatArray
from meshwright.planner.calibration.constants import Constant, candidate, device_constants, tier_constants
from meshwright.planner.calibration.evidence import Evidence, rows_by_label
from meshwright.planner.calibration.fit import Fit, fit
from meshwright.planner.calibration.folds import LeftOut, folds_of, log_ratio_without
from meshwright.planner.calibration.known_steps import constants_of_steps
from meshwright.planner.calibration.linearised import Mask, Watch, depends
from meshwright.planner.calibration.overlay_document import rounded_overlay, with_residuals
from meshwright.planner.calibration.residuals import residuals_of
from meshwright.planner.calibration.sources import Asked, Source

TOLD = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A constant that the evidence tells of, in base units.

    standard_error: relative. told: the share of its uncertainty that the evidence removed, from 0 to 1.
    """

    constant: Constant
    before: float
    after: float
    standard_error: float
    told: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceErrors:
    """Mean absolute relative errors of one source's rows: as the catalog predicts them, fitted, and left out.

    without: what was left out at once; None, as `left_out` is, where there was nothing to fit to without it.
    """

    label: str
    rows: int
    before: float
    after: float
    left_out: float | None
    without: LeftOut | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was fitted, and how well.

    moved: the constants that the evidence tells of; the overlay holds those and no others.
    untold: the names of those of which it says nothing.
    residuals: how far off left-out training steps are, which the overlay holds too.
    notes: what of the files wasn't used, a sentence each.
    """

    device: str
    moved: tuple[Moved, ...]
    untold: tuple[str, ...]
    sources: tuple[SourceErrors, ...]
    residuals: tuple[ResidualsEntry, ...]
    overlay: OverlayEntry
    notes: tuple[str, ...]

    @property
    def left_out_is_no_nearer(self) -> bool:
        """Whether, over the sources that were left out, left-out rows are as far off as by the catalog, or farther."""
        pairs = [(source.left_out, source.before) for source in self.sources if source.left_out is not None]
        return bool(pairs) and sum(left_out for left_out, _ in pairs) >= sum(before for _, before in pairs)


def calibrate(sources: Sequence[Source], asked: Asked, *, watch: Watch = iter) -> Calibration:
    """Fit the constants of a device, of its clusters' tiers and of the stacks that ran on it.

    Args:
        sources: what the files say; a file is a source.
        asked: which machine.
        watch: given the numbers of the constants whose derivatives are measured, hands them on; a progress bar does.

    Raises InputError where nothing in the sources is of the device, and where what there is tells nothing of any
    constant, as in another unit.

    """
    notes = tuple(chain.from_iterable(source.notes for source in sources))
    evidence = tuple(each for source in sources for each in source.evidence if len(each))
    if not evidence:
        raise InputError(
            f"nothing measured on {asked.device} is in the files" + (f": {notes[0]}" if notes else ""),
            hint="`meshwright catalog devices` lists the names of devices; --trust low takes more cases",
        )
    constants = tuple(each for each in _constants(sources, asked) if any(depends(part, each) for part in evidence))
    found = fit(evidence, constants, watch=watch)
    told: Mask = found.told >= TOLD
    if not told.any():
        raise InputError(
            f"the files tell nothing of any constant of {asked.device}: predictions are {_off(found)} off, and no "
            "constant within what physics allows brings them near",
            hint="check that the files are of this device and say what ran; else give more rows, or rows whose time "
            "depends on what is to be calibrated",
        )
    source = _source_text(evidence, asked)
    left_out, at_once = _left_out(evidence, constants, found)
    residuals = residuals_of(evidence, left_out)
    overlay = with_residuals(
        rounded_overlay(_kept(constants, told), found.log_factors[told], source=source),
        residuals,
        device=asked.device,
    )
    return Calibration(
        device=asked.device,
        moved=tuple(_moved(constants, found, told)),
        untold=tuple(each.name for each in _kept(constants, ~told)),
        sources=_errors(evidence, left_out, at_once, overlay),
        residuals=residuals,
        overlay=overlay,
        notes=notes,
    )


def _off(found: Fit) -> str:
    return f"{np.median(np.abs(np.expm1(found.near.log_ratio))):.0%}"


def _constants(sources: Sequence[Source], asked: Asked) -> Iterable[Constant]:
    """Give the constants of the device, of its reference cluster, and of clusters and stacks that its cases name."""
    steps = [step for source in sources for step in source.steps]
    machine = asked.machine
    every = (
        *device_constants(machine.device.name, [machine.device]),
        *(each for tier in machine.reference.tiers for each in tier_constants(machine.reference.name, tier)),
        *constants_of_steps(steps, by_family=False),
    )
    return {(constant.section, constant.name): constant for constant in every}.values()


def _kept(constants: Sequence[Constant], kept: Mask) -> list[Constant]:
    return [constant for constant, keep in zip(constants, kept, strict=True) if keep]


def _moved(constants: Sequence[Constant], found: Fit, told: Mask) -> Iterable[Moved]:
    for index, constant in enumerate(constants):
        if not told[index]:
            continue
        yield Moved(
            constant=constant,
            before=constant.before,
            after=constant.before * float(np.exp(found.log_factors[index])),
            standard_error=float(found.standard_errors[index]),
            told=float(found.told[index]),
        )


def _left_out(
    evidence: Sequence[Evidence], constants: Sequence[Constant], found: Fit
) -> tuple[FloatArray, Mapping[str, LeftOut]]:
    """Give log(predicted / measured) of each row left out, nan where there was nothing to fit to, and how, by label."""
    ratios = np.full(sum(map(len, evidence)), np.nan)
    at_once: dict[str, LeftOut] = {}
    for fold in folds_of(evidence, found):
        at_once[fold.label] = fold.left_out
        ratios[fold.rows] = log_ratio_without(fold, evidence, constants, found)
    return ratios, at_once


def _errors(
    evidence: Sequence[Evidence], left_out: FloatArray, at_once: Mapping[str, LeftOut], overlay: OverlayEntry
) -> tuple[SourceErrors, ...]:
    before = _by_label(evidence, candidate((), ()))
    after = _by_label(evidence, overlay)
    labels = np.array([each.label for each in evidence for _ in each.places])
    return tuple(
        SourceErrors(
            label=label,
            rows=rows,
            before=float(np.abs(before[label]).mean()),
            after=float(np.abs(after[label]).mean()),
            left_out=float(np.abs(np.expm1(left_out[labels == label])).mean()) if label in at_once else None,
            without=at_once.get(label),
        )
        for label, rows in rows_by_label(evidence).items()
    )


def _by_label(evidence: Sequence[Evidence], overlay: OverlayEntry) -> dict[str, FloatArray]:
    errors: dict[str, list[FloatArray]] = defaultdict(list)
    for each in evidence:
        errors[each.label].append(each.predict(overlay) / each.measured_s - 1.0)
    return {label: np.concatenate(parts) for label, parts in errors.items()}


def _source_text(evidence: Sequence[Evidence], asked: Asked) -> str:
    """Say what an overlay was fitted to, in printable characters."""
    rows = rows_by_label(evidence)
    names = ", ".join(f"{Path(label).name} ({count} row{'s' if count > 1 else ''})" for label, count in rows.items())
    text = f"meshwright calibrate --device {asked.device}: {names:.1000}"
    return text if text.isprintable() else f"meshwright calibrate --device {asked.device}"
