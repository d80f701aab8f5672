"""Intervals by hand, and the spread of errors that they come from."""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.catalog.lookup import device_named
from meshwright.catalog.precision import Precision, PrecisionClass
from meshwright.catalog.residuals_entry import ModelKind
from meshwright.catalog.uncertainty import shipped_uncertainty
from meshwright.catalog.uncertainty_entry import SpreadEntry, UncertaintyEntry
from meshwright.costmodels.job import Job
from meshwright.planner.accuracy import Accuracy
from meshwright.planner.accuracy.spread import FEWEST_ROWS, covered_by, groups_of, is_within, log_error, spreads_of
from meshwright.planner.uncertainty import Knowledge, Quantity, interval, reasons, width_of


def spread(quantity: Quantity, precision: PrecisionClass, knowledge: Knowledge, factor: float) -> SpreadEntry:
    return SpreadEntry(quantity=quantity, precision=precision, inputs=knowledge, factor=factor, rows=100, sources=4)


# The round device's family was measured at 16 bits on at most 16 devices.
UNCERTAINTY = UncertaintyEntry(
    source="by hand",
    level=0.9,
    spreads=(
        spread(Quantity.STEP_TIME, PrecisionClass.HALF, Knowledge.TOLD, math.e**0.3),
        spread(Quantity.STEP_TIME, PrecisionClass.HALF, Knowledge.UNKNOWN, math.e**0.8),
        spread(Quantity.NVIDIA_SMI, PrecisionClass.HALF, Knowledge.TOLD, math.e**0.1),
    ),
    unmeasured=math.e**0.4,
    covered={"round": {PrecisionClass.HALF: 16}},
)


def width(job: Job, quantity: Quantity = Quantity.STEP_TIME, knowledge: Knowledge = Knowledge.TOLD) -> float:
    found = interval(2.0, quantity=quantity, job=job, knowledge=knowledge, uncertainty=UNCERTAINTY)
    assert found.low * found.high == pytest.approx(4.0)
    return math.log(found.high / 2.0)


def test_a_covered_prediction_has_the_spread_of_its_like(round_job: Callable[..., Job]) -> None:
    assert width(round_job()) == pytest.approx(0.3)
    assert width(round_job(), knowledge=Knowledge.UNKNOWN) == pytest.approx(0.8)
    assert width(round_job(), Quantity.NVIDIA_SMI) == pytest.approx(0.1)
    assert reasons(round_job(), UNCERTAINTY) == ()


def test_what_no_row_was_like_has_the_widest_spread_of_its_quantity(round_job: Callable[..., Job]) -> None:
    assert width(round_job(), knowledge=Knowledge.INFERRED) == pytest.approx(0.8)


def test_an_unmeasured_precision_adds_what_unmeasured_families_need(round_job: Callable[..., Job]) -> None:
    job = round_job(precision=Precision.FP8)
    assert width(job) == pytest.approx(math.hypot(0.8, 0.4))
    assert reasons(job, UNCERTAINTY) == ("no round device was measured in narrower formats with all inputs told",)
    # Memory takes the widest of its quantity, and both grow with what is larger than any machine measured: two
    # doublings of 16 devices.
    assert width(job, Quantity.NVIDIA_SMI) == pytest.approx(0.1)
    larger = round_job(precision=Precision.FP8, cluster={"devices": 64})
    assert width(larger) == pytest.approx(math.sqrt(0.8**2 + 0.4**2 + 2 * 0.4**2))


def test_each_doubling_beyond_what_was_measured_adds_half(round_job: Callable[..., Job]) -> None:
    # 64 devices are two doublings of 16: 0.3^2 + 2 x 0.15^2.
    job = round_job(cluster={"devices": 64})
    assert width(job) == pytest.approx(math.sqrt(0.09 + 2 * 0.0225))
    assert reasons(job, UNCERTAINTY) == ("64 devices are more than the 16 that a measured step of its family had",)
    assert width(job, Quantity.NVIDIA_SMI) == pytest.approx(0.1)


@given(devices=st.integers(1, 4096))
def test_more_devices_are_never_surer(round_job: Callable[..., Job], devices: int) -> None:
    job = round_job()
    fewer, more = (replace(job, cluster=replace(job.cluster, devices=count)) for count in (devices, devices + 1))
    assert width(fewer) <= width(more)


def test_nine_tenths_of_a_group_are_within_its_spread(shipped: Accuracy) -> None:
    known = {None: "told", "high": "told", "medium": "inferred", "low": "unknown"}
    for each in spreads_of(shipped.rows):
        like = [
            row
            for row in shipped.rows
            if row.quantity == each.quantity
            and each.precision in {None, row.precision_class}
            and each.inputs in {None, known[row.case.trust]}
            and each.model in {None, "mixture" if row.case.model.moe else "dense"}
        ]
        assert len(like) == each.rows
        within = sum(abs(log_error(row)) <= math.log(each.factor) + 1e-3 for row in like)
        # Factors are rounded, so that one row more may be inside.
        assert 0.9 <= within / len(like) <= 0.95 + 1 / len(like)


def test_intervals_hold_left_out_rows(shipped: Accuracy) -> None:
    # The bar: intervals of 90 % hold 85 to 95 % of the rows of sources that they weren't made from.
    assert shipped.interval_coverage is not None
    assert 0.85 <= shipped.interval_coverage <= 0.95


def test_intervals_hold_nine_tenths_of_each_class(shipped: Accuracy) -> None:
    classes: dict[tuple[object, ...], list[bool]] = defaultdict(list)
    spreads = shipped_uncertainty().spreads
    for row in shipped.rows:
        if row.quantity is Quantity.STEP_TIME:
            classes[groups_of(row)[0]].append(is_within(row, spreads))
    large = {group: held for group, held in classes.items() if len(held) >= FEWEST_ROWS}
    assert len(large) == 7
    for group, held in large.items():
        # Narrow formats are taken to be no surer than 16 bits, so that their intervals may hold more.
        most = 1.0 if group[1] is PrecisionClass.NARROW else 0.95
        assert 0.85 <= sum(held) / len(held) <= most, group


def test_mixtures_are_a_class_of_their_own(shipped: Accuracy) -> None:
    # Where anything is inferred, steps of mixtures of experts spread more than twice as far as others.
    by_class = {(each.inputs, each.model): each for each in spreads_of(shipped.rows) if each.precision is None}
    mixtures, dense = by_class["inferred", ModelKind.MIXTURE], by_class["inferred", ModelKind.DENSE]
    assert math.log(mixtures.factor) > 2 * math.log(dense.factor)
    assert ("told", ModelKind.MIXTURE) not in by_class


def test_what_few_rows_are_like_shares_the_spread_that_tells_the_most_of_it() -> None:
    def of(factor: float, **told: object) -> SpreadEntry:
        document = {"quantity": "step_time", "factor": factor, "rows": 30, "sources": 2}
        return SpreadEntry.model_validate(document | told)

    spreads = (
        of(1.1, precision="16-bit", inputs="told", model="dense"),
        of(1.2, inputs="told", model="dense"),
        of(1.6, model="mixture"),
        of(2.5, inputs="inferred", model="mixture"),
    )

    def factor(precision: PrecisionClass, knowledge: Knowledge, model: ModelKind) -> float:
        found = width_of(Quantity.STEP_TIME, precision=precision, knowledge=knowledge, model=model, spreads=spreads)
        return math.exp(found)

    half, narrow = PrecisionClass.HALF, PrecisionClass.NARROW
    assert factor(half, Knowledge.TOLD, ModelKind.DENSE) == pytest.approx(1.1)
    assert factor(narrow, Knowledge.TOLD, ModelKind.DENSE) == pytest.approx(1.2)
    assert factor(half, Knowledge.TOLD, ModelKind.MIXTURE) == pytest.approx(1.6)
    assert factor(narrow, Knowledge.INFERRED, ModelKind.MIXTURE) == pytest.approx(2.5)
    # Nothing is like a dense model of unknown inputs: the widest.
    assert factor(half, Knowledge.UNKNOWN, ModelKind.DENSE) == pytest.approx(2.5)


def test_what_was_measured_is_covered(shipped: Accuracy) -> None:
    covered = covered_by(shipped.rows, family_of=lambda name: device_named(name).family)
    assert covered == shipped_uncertainty().covered
    # All that was published of Ascend leaves something unknown; the widest steps of Hopper are MLPerf's.
    assert "ascend" not in covered
    assert covered["hopper"][PrecisionClass.NARROW] == 11616


def test_narrow_formats_are_no_surer_than_16_bits(round_job: Callable[..., Job]) -> None:
    narrow = spread(Quantity.STEP_TIME, PrecisionClass.NARROW, Knowledge.TOLD, math.e**0.1)
    covered = {"round": {PrecisionClass.HALF: 16, PrecisionClass.NARROW: 16}}
    both = UNCERTAINTY.model_copy(update={"spreads": (*UNCERTAINTY.spreads, narrow), "covered": covered})
    job = round_job(precision=Precision.FP8)
    found = interval(2.0, quantity=Quantity.STEP_TIME, job=job, knowledge=Knowledge.TOLD, uncertainty=both)
    assert math.log(found.high / 2.0) == pytest.approx(0.3)
