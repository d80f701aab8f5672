"""Rows, statistics and verdicts, by hand; and what the shipped measurements say of the whole."""

from collections.abc import Callable
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.catalog.errors import InputError
from meshwright.catalog.precision import PRECISION_CLASSES, PrecisionClass
from meshwright.planner.accuracy import Estimate, accuracy
from meshwright.planner.accuracy.summary import statistics_of
from meshwright.planner.uncertainty import Quantity

MakeEstimate = Callable[..., Estimate]
GIB = 2**30


def test_each_quantity_is_compared_with_its_own_prediction(make_estimate: MakeEstimate) -> None:
    result = accuracy(
        [
            make_estimate({"step_time_s": 1.6, "peak_memory_bytes": 8 * GIB, "peak_memory_kind": "allocated"}),
            make_estimate({"peak_memory_bytes": 11 * GIB, "peak_memory_kind": "reserved"}),
            make_estimate({"peak_memory_bytes": 16 * GIB, "peak_memory_kind": "nvidia_smi"}),
        ]
    )
    errors = {row.quantity: row.error for row in result.rows}
    assert errors == {
        Quantity.STEP_TIME: pytest.approx(0.25),
        Quantity.ALLOCATED: pytest.approx(0.25),
        Quantity.RESERVED: 0.0,
        Quantity.NVIDIA_SMI: -0.25,
    }


def test_statistics_by_hand() -> None:
    statistics = statistics_of([0.05, -0.10, 0.30, -0.05])
    assert statistics.count == 4
    assert statistics.mean_absolute == pytest.approx(0.125)
    assert statistics.median_absolute == pytest.approx(0.075)
    assert statistics.bias == pytest.approx(0.05)
    assert statistics.within_tenth == 0.75


def test_a_short_file_counts_as_much_as_a_long_one(make_estimate: MakeEstimate) -> None:
    exact, double = {"step_time_s": 2.0}, {"step_time_s": 1.0}
    result = accuracy(
        [make_estimate(exact, file="long.yaml") for _ in range(3)] + [make_estimate(double, file="short.yaml")]
    )
    headline = next(item for item in result.headlines if item.selection == "all")
    assert (headline.count, headline.files) == (4, 2)
    assert headline.mean_over_rows == pytest.approx(0.25)
    assert headline.mean_over_files == pytest.approx(0.5)


def test_a_case_that_is_given_twice_counts_once(make_estimate: MakeEstimate) -> None:
    first = make_estimate({"step_time_s": 2.0}, id="a")
    again = make_estimate({"step_time_s": 2.0}, id="a", file="b.yaml")
    other = make_estimate({"step_time_s": 1.0}, id="a", file="b.yaml")
    result = accuracy([first, again, other])
    assert (result.cases, [row.file for row in result.rows]) == (2, ["a.yaml", "b.yaml"])
    assert result.repeated == (again,)


def test_the_bar_counts_high_trust_16_bit_rows_only(make_estimate: MakeEstimate) -> None:
    result = accuracy(
        [
            make_estimate({"step_time_s": 2.0}, trust="high"),
            make_estimate({"step_time_s": 1.0}, trust="low"),
            make_estimate({"step_time_s": 1.0}, trust="high", precision="fp8"),
            make_estimate({"step_time_s": 1.0}),
        ]
    )
    by_selection = {item.selection: item for item in result.headlines}
    assert by_selection["high trust, 16-bit"].count == 1
    assert by_selection["high trust, 16-bit"].mean_over_rows == 0.0
    assert by_selection["high trust, narrower"].count == 1
    assert by_selection["all"].mean_over_rows == pytest.approx(0.75)


def test_summaries_by_what_rows_share(make_estimate: MakeEstimate) -> None:
    result = accuracy(
        [
            make_estimate({"step_time_s": 2.0}, trust="high", file="a.yaml"),
            make_estimate({"step_time_s": 4.0}, trust="low", file="b.yaml", precision="fp8"),
            make_estimate({"step_time_s": 1.0}, cluster={"device": "h100-sxm-80gb"}),
        ]
    )
    found = {(item.dimension, item.value): item.statistics for item in result.summaries}
    assert found["file", "a.yaml"].count == 2
    assert found["file", "a.yaml"].bias == pytest.approx(0.5)
    assert found["file", "b.yaml"].bias == pytest.approx(-0.5)
    assert found["device", "h100-sxm-80gb"].bias == pytest.approx(1.0)
    assert found["trust", "not told"].count == 1
    assert found["precision", "narrower"].count == 1
    assert found["quantity", "step_time"].count == 3


def test_running_out_of_memory_is_a_verdict(make_estimate: MakeEstimate) -> None:
    result = accuracy(
        [
            make_estimate({"out_of_memory": True}, limit=11, id="right"),
            make_estimate({"out_of_memory": True}, limit=13, id="missed"),
            make_estimate({"step_time_s": 2.0}, limit=11, id="refused"),
            make_estimate({"step_time_s": 2.0}, limit=13, id="fine"),
        ]
    )
    verdicts = {item.case.id: item.foretold_out_of_memory for item in result.out_of_memory}
    assert verdicts == {"right": True, "missed": False}
    assert [item.case.id for item in result.wrongly_refused] == ["refused"]


def test_nothing_is_dropped(make_estimate: MakeEstimate) -> None:
    good = make_estimate({"step_time_s": 2.0})
    failed = Estimate(
        case=make_estimate({"step_time_s": 3.0}).case,
        file="a.yaml",
        predicted=None,
        failure=InputError("no such thing", hint="try"),
    )
    own = make_estimate(None)
    result = accuracy([good, failed, own])
    assert (result.cases, len(result.rows), result.unmeasured) == (3, 1, 1)
    assert [item.error for item in result.unpredicted] == ["no such thing; try"]


def test_every_precision_has_a_class() -> None:
    assert {precision.value: kind for precision, kind in PRECISION_CLASSES.items()} == {
        "fp32": PrecisionClass.WIDE,
        "bf16": PrecisionClass.HALF,
        "fp16": PrecisionClass.HALF,
        "fp8": PrecisionClass.NARROW,
        "mxfp8": PrecisionClass.NARROW,
        "nvfp4": PrecisionClass.NARROW,
    }


@given(st.lists(st.floats(-0.99, 100), min_size=1))
def test_laws_of_statistics(errors: list[float]) -> None:
    statistics = statistics_of(errors)
    sizes = [abs(error) for error in errors]
    assert statistics.count == len(errors)
    assert abs(statistics.bias) <= statistics.mean_absolute + 1e-12
    assert min(sizes) <= statistics.median_absolute <= max(sizes)
    assert min(sizes) - 1e-12 <= statistics.mean_absolute == fmean(sizes)
    assert 0 <= statistics.within_tenth <= 1
