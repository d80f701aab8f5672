"""Intervals that the user's own left-out steps move: by hand, by law, and through an overlay."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.catalog.precision import PrecisionClass
from meshwright.catalog.residuals_entry import ModelKind, ResidualsEntry
from meshwright.catalog.uncertainty import shipped_uncertainty
from meshwright.costmodels.job import Job
from meshwright.planner.accuracy import estimate
from meshwright.planner.accuracy.case import Case
from meshwright.planner.calibration.evidence import Evidence, StepClass
from meshwright.planner.calibration.residuals import residuals_of
from meshwright.planner.own_spread import student_quantile, width_with
from meshwright.planner.uncertainty import Knowledge, Quantity, interval, reasons

DENSE = StepClass(precision=PrecisionClass.HALF, model=ModelKind.DENSE, devices=64)


def residuals(**changes: object) -> ResidualsEntry:
    given = {"precision": "16-bit", "model": "dense", "spread": 0.02, "rows": 10, "counts_as": 10.0, "devices": 64}
    return ResidualsEntry.model_validate(given | changes)


@pytest.mark.parametrize("freedom", [10.0, 10.25, 14.0, 20.0, 60.0, 1e4])
def test_quantiles_are_students(freedom: float) -> None:
    assert student_quantile(0.95, freedom) == pytest.approx(float(student.ppf(0.95, freedom)), abs=1e-3)


def test_widths_by_hand() -> None:
    # t(10) = 1.812, t(20) = 1.725: the catalog's 0.134 is a spread of 0.0739 over ten rows.
    square = (10 * (0.134 / 1.8125) ** 2 + 10 * 0.02**2) / 20
    assert width_with(residuals(), width=0.134, level=0.9) == pytest.approx(1.7247 * math.sqrt(square), rel=1e-3)
    assert width_with(residuals(spread=0.0), width=1.0, level=0.9) == pytest.approx(0.673, abs=1e-3)
    assert width_with(residuals(counts_as=1e9), width=1.0, level=0.9) == pytest.approx(1.6449 * 0.02, rel=1e-3)
    assert width_with(residuals(counts_as=1e-6), width=0.5, level=0.9) == pytest.approx(0.5, rel=1e-3)


@given(width=st.floats(0.01, 2), spread=st.floats(0, 2), counts_as=st.floats(0.1, 1000), more=st.floats(1, 10))
def test_larger_errors_never_narrow(width: float, spread: float, counts_as: float, more: float) -> None:
    near = width_with(residuals(spread=spread, counts_as=counts_as), width=width, level=0.9)
    far = width_with(residuals(spread=min(more * spread, 20), counts_as=counts_as), width=width, level=0.9)
    assert near <= far + 1e-12
    # Rows that scatter as the catalog says leave what it says, but for what more rows make surer.
    alike = width_with(
        residuals(spread=width / student_quantile(0.95, 10), counts_as=counts_as), width=width, level=0.9
    )
    assert 0.9 * width <= alike <= width


def with_residuals(job: Job, *own: ResidualsEntry) -> Job:
    device = replace(job.cluster.device, residuals=own)
    return replace(job, cluster=replace(job.cluster, device=device))


def width(job: Job, knowledge: Knowledge = Knowledge.TOLD) -> float:
    uncertainty = shipped_uncertainty().model_copy(update={"covered": {"round": {PrecisionClass.HALF: 16}}})
    found = interval(1.0, quantity=Quantity.STEP_TIME, job=job, knowledge=knowledge, uncertainty=uncertainty)
    return math.log(found.high)


def test_own_steps_move_the_interval_of_what_is_like_them(round_job: Callable[..., Job]) -> None:
    job = round_job()
    plain = width(job)
    assert width(with_residuals(job, residuals())) == pytest.approx(width_with(residuals(), width=plain, level=0.9))
    assert width(with_residuals(job, residuals(spread=0.3))) > 1.5 * plain
    for other in (residuals(precision="narrower"), residuals(model="mixture")):
        assert width(with_residuals(job, other)) == plain
    unknown = width(job, Knowledge.UNKNOWN)
    assert width(with_residuals(job, residuals()), Knowledge.UNKNOWN) == unknown


def test_own_steps_cover_a_family_and_its_scale(round_job: Callable[..., Job]) -> None:
    uncertainty = shipped_uncertainty()
    job = round_job()
    assert reasons(job, uncertainty) == ("no round device was measured in 16-bit formats with all inputs told",)
    own = with_residuals(job, residuals(devices=16))
    assert reasons(own, uncertainty) == ()
    larger = with_residuals(round_job(cluster={"devices": 64}), residuals(devices=16))
    assert reasons(larger, uncertainty) == ("64 devices are more than the 16 that a measured step of its family had",)
    assert width(with_residuals(round_job(cluster={"devices": 64}), residuals(devices=64))) == width(own)


def evidence(label: str, rows: int, *, confidence: float = 1.0, steps: tuple[StepClass, ...] | None = None) -> Evidence:
    return Evidence(
        label=label,
        places=("row",) * rows,
        measured_s=np.ones(rows),
        predict=lambda _: np.ones(rows),
        confidence=np.full(rows, confidence),
        steps=steps,
    )


def test_residuals_by_hand() -> None:
    # Twenty rows of one source count as ten, two of another, half trusted, as one; timed products don't count.
    mixture = StepClass(precision=PrecisionClass.HALF, model=ModelKind.MIXTURE, devices=8)
    parts = [
        evidence("a", 20, steps=(DENSE,) * 20),
        evidence("b", 2, confidence=0.5, steps=(replace(DENSE, devices=128),) * 2),
        evidence("gemm", 3),
        evidence("c", 2, steps=(mixture, mixture)),
    ]
    left_out = np.array([0.01] * 20 + [-0.1] * 2 + [5.0] * 3 + [0.3, np.nan])
    dense, experts = residuals_of(parts, left_out)
    square = (10 * 0.01**2 + 1 * 0.1**2) / 11
    assert dense.model_dump() == {
        "precision": "16-bit",
        "model": "dense",
        "spread": pytest.approx(math.sqrt(square), abs=1e-4),
        "rows": 22,
        "counts_as": 11.0,
        "devices": 128,
    }
    assert (experts.model, experts.rows, experts.spread, experts.devices) == ("mixture", 1, 0.3, 8)
    assert residuals_of([evidence("gemm", 3)], np.zeros(3)) == ()


def test_an_overlay_narrows_the_intervals_of_its_device(case_document: Callable[..., dict[str, Any]]) -> None:
    def ratio(laid: list[OverlayEntry], device: str) -> float:
        document = case_document(cluster={"device": device})
        (found,) = estimate([Case.model_validate(document)], overlays=laid)
        assert found.predicted is not None
        return found.predicted.intervals[Quantity.STEP_TIME].high / found.predicted.step_time_s

    own = {"calibration": {}, "residuals": [residuals().model_dump(mode="json")]}
    laid = OverlayEntry.model_validate({"version": 1, "source": "ours", "devices": {"a100-sxm-80gb": own}})
    assert ratio([laid], "a100-sxm-80gb") < ratio([], "a100-sxm-80gb")
    assert ratio([laid], "h100-sxm-80gb") == ratio([], "h100-sxm-80gb")
    assert laid.model_dump(mode="json")["devices"]["a100-sxm-80gb"] == own
