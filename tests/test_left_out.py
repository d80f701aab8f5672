"""Predictions by constants that were fitted without a case's source, or that belong to other families."""

import math
from pathlib import Path

import pytest
import yaml

from meshwright.catalog.cross_validation import cross_validation
from meshwright.catalog.lookup import device_named, entry_names
from meshwright.planner.accuracy import Accuracy, estimate
from meshwright.planner.accuracy.borrowed import unmeasured_factor
from meshwright.planner.accuracy.left_out import left_out_estimates
from meshwright.planner.accuracy.spread import coverage_of, spreads_of
from meshwright.planner.uncertainty import Knowledge, Quantity

MEASUREMENTS = Path(__file__).parents[1] / "catalog" / "measurements"
SIMUMAX = MEASUREMENTS / "simumax.yaml"


def test_a_source_of_the_catalog_is_predicted_again_in_the_same_order() -> None:
    estimates = estimate([SIMUMAX])
    again = left_out_estimates(estimates)
    assert [item.case.id for item in estimates] == [item.case.id for item in again if item is not None]
    # Other sources of the family say other constants, so that each step time moves.
    for item, other in zip(estimates, again, strict=True):
        assert item.predicted is not None
        assert other is not None
        assert other.predicted is not None
        assert other.predicted.step_time_s != item.predicted.step_time_s


def test_a_case_of_the_user_has_no_constants_without_it(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(yaml.safe_load(SIMUMAX.read_text("utf-8"))[:2]), "utf-8")
    both = estimate([mine, SIMUMAX])
    again = left_out_estimates(both)
    assert len(again) == len(both)
    assert again[:2] == (None, None)
    assert None not in again[2:]


def test_constants_without_a_source_were_never_fitted_to_it() -> None:
    # Its 30 rows are of Blackwell devices: its constants come from those of MLPerf and of Megatron-LM's CI.
    left_out = cross_validation().sources["simumax"]
    assert left_out.refitted == {"blackwell": True}
    assert 0 < left_out.rows < 30


def test_not_to_have_been_measured_costs_trust(shipped: Accuracy) -> None:
    estimates = estimate(sorted(MEASUREMENTS.glob("*.yaml")))
    devices = {name: device_named(name) for name in entry_names("devices")}
    factor = unmeasured_factor(estimates, shipped.rows, devices)
    # Between a tenth and a factor of two: borrowed constants are worse than fitted ones, but not useless.
    assert 1.1 < factor < 2.0
    told = next(
        each
        for each in spreads_of(shipped.rows)
        if (each.quantity, each.inputs) == (Quantity.STEP_TIME, Knowledge.TOLD) and each.precision == "16-bit"
    )
    assert math.log(factor) > math.log(told.factor)


@pytest.mark.parametrize("level", [0.5, 0.8])
def test_narrower_intervals_hold_fewer_rows(shipped: Accuracy, level: float) -> None:
    fewer, more = coverage_of(shipped.rows, level=level), coverage_of(shipped.rows)
    assert fewer is not None
    assert more is not None
    assert fewer < more


def test_what_no_other_source_tells_of_has_no_left_out_error(shipped: Accuracy) -> None:
    # Ascend is in one file only, and memory hangs on no fitted constant.
    without = {row.quantity for row in shipped.rows if row.left_out_error is not None}
    assert without == {Quantity.STEP_TIME}
    ascend = [row for row in shipped.rows if row.case.cluster.device == "ascend-910b"]
    assert ascend
    assert all(row.left_out_error is None for row in ascend)
