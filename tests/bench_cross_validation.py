"""Fits the catalog's constants without each source of measurements in turn, and prints what that does to the errors.

`make bench-cross-validation` runs it and writes the constants to `catalog/cross_validation.yaml`; it takes minutes.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from meshwright.catalog.cross_validation_entry import CrossValidationEntry
from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.planner.accuracy import Case, estimate, load_cases
from meshwright.planner.calibration.case_evidence import MeasuredStep
from meshwright.planner.calibration.constants import candidate
from meshwright.planner.calibration.known_steps import measured_steps
from meshwright.planner.calibration.leave_one_out import cross_validate, cross_validation_yaml, figures_digest

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "catalog" / "cross_validation.yaml"


def all_cases() -> dict[str, tuple[Case, ...]]:
    """Give the cases of each file of `catalog/measurements`."""
    return {file.stem: load_cases(file) for file in sorted((ROOT / "catalog" / "measurements").glob("*.yaml"))}


def show(entry: CrossValidationEntry, steps: Mapping[str, Sequence[MeasuredStep]]) -> None:
    """Print the mean absolute error of each source, with the catalog's constants and with those fitted without it."""
    sys.stdout.write(f"{'source':24} {'rows':>5} {'fitted to':>9} {'catalog':>8} {'left out':>8}  not refitted\n")
    for source, left_out in entry.sources.items():
        catalog, without = (mean_error(steps[source], overlay) for overlay in (candidate((), ()), left_out.overlay))
        kept = ", ".join(family for family, refitted in left_out.refitted.items() if not refitted)
        sys.stdout.write(
            f"{source:24} {len(steps[source]):5} {left_out.rows:9} {catalog:8.1%} {without:8.1%}  {kept}\n"
        )


def mean_error(steps: Sequence[MeasuredStep], overlay: OverlayEntry) -> float:
    """Give the mean absolute relative error of step times under an overlay."""
    return fmean(abs(step.predict(overlay) / step.measured_s - 1) for step in steps)


def main() -> None:
    """Fit, write and print."""
    cases = all_cases()
    steps = {source: tuple(measured_steps(estimate(members))) for source, members in cases.items()}
    entry = cross_validate(steps, figures=figures_digest(cases))
    TARGET.write_text(cross_validation_yaml(entry), "utf-8")
    show(entry, steps)


if __name__ == "__main__":
    main()
