"""Fitting constants: what is told is found, what isn't told stays, and left-out rows are never seen."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.costmodels.layout import FloatArray
from meshwright.planner.calibration.constants import Constant, Section, Span
from meshwright.planner.calibration.evidence import Evidence
from meshwright.planner.calibration.fit import Fit, corrected, cost, fit, uncertainty, weights_of
from meshwright.planner.calibration.folds import LeftOut, folds_of, log_ratio_without
from meshwright.planner.calibration.linearised import linearise

WIDE = Span(low=1e-3, high=1e3, spread=10.0)


def constant(name: str, span: Span = WIDE, value: float = 1.0) -> Constant:
    return Constant(section=Section.STACKS, owner=name, figure="layer_launch", shipped={name: value}, span=span)


def power_law(
    exponents: dict[str, Sequence[float]],
    truth: dict[str, float],
    *,
    label: str = "a",
    noise: Sequence[float] | None = None,
    confidence: FloatArray | None = None,
) -> Evidence:
    """Give evidence whose rows are products of powers of the constants, measured where they have their true values."""
    rows = len(next(iter(exponents.values())))

    def seconds(values: dict[str, float]) -> FloatArray:
        return np.exp(sum(np.array(powers) * math.log(values[name]) for name, powers in exponents.items()))

    def predict(overlay: OverlayEntry) -> FloatArray:
        return seconds({name: overlay.stacks[name].given["layer_launch"] for name in exponents})

    return Evidence(
        label=label,
        places=tuple(f"{label}: {row}" for row in range(rows)),
        measured_s=seconds(truth) * np.exp(np.zeros(rows) if noise is None else np.array(noise)),
        predict=predict,
        confidence=confidence,
    )


def values(found: Fit) -> list[float]:
    return [float(value) for value in np.exp(found.log_factors)]


def test_what_the_rows_tell_is_found() -> None:
    rows = power_law({"x": [-1, -1, 0.5, 0], "y": [0, -0.5, 1, 1]}, {"x": 0.5, "y": 3.0})
    found = fit([rows], [constant("x"), constant("y")])
    assert values(found) == pytest.approx([0.5, 3.0], rel=1e-3)
    assert np.all(found.told > 0.99)
    assert np.abs(found.near.log_ratio).max() < 1e-3


def test_what_the_rows_do_not_tell_stays() -> None:
    rows = power_law({"x": [-1, -1], "y": [0, 0]}, {"x": 0.5, "y": 3.0})
    found = fit([rows], [constant("x"), constant("y", Span(low=0.1, high=10.0, spread=0.2))])
    assert values(found) == pytest.approx([0.5, 1.0], rel=1e-3)
    assert found.told[1] == 0.0
    assert found.standard_errors[1] == pytest.approx(0.2)


def test_a_prior_weighs_as_a_measurement_of_its_spread() -> None:
    # One row that wants x = 1.01, of an error of 5 %, against a prior at 1 of a spread of 5 %: half the way.
    rows = power_law({"x": [1]}, {"x": 1.01})
    found = fit([rows], [constant("x", Span(low=0.1, high=10.0, spread=0.05))])
    assert values(found)[0] == pytest.approx(1.005, abs=1e-4)


def test_bounds_hold() -> None:
    rows = power_law({"x": [1, 1, 1]}, {"x": 3.0})
    found = fit([rows], [constant("x", Span(low=0.5, high=2.0, spread=10.0))])
    assert values(found)[0] == pytest.approx(2.0, rel=1e-6)


def test_a_constant_on_its_bound_holds_no_other_one() -> None:
    # x can't grow, and the rows want it to; y is free.
    rows = power_law({"x": [1, 1, 0, 0.5], "y": [0, 0.2, 1, 1]}, {"x": 1.3, "y": 3.0})
    found = fit([rows], [constant("x", Span(low=0.02, high=1.0, spread=0.3)), constant("y")])
    assert values(found)[0] == pytest.approx(1.0, rel=1e-6)
    assert values(found)[1] == pytest.approx(3.0, rel=0.15)


def test_a_row_that_is_far_off_hardly_counts() -> None:
    noise = [0.0, 0.0, 0.0, 0.0, math.log(3.0)]
    found = fit([power_law({"x": [1] * 5}, {"x": 1.2}, noise=noise)], [constant("x")])
    # Least squares would give 1.2 x 3^(1/5) = 1.49.
    assert values(found)[0] == pytest.approx(1.2, rel=0.002)


def test_rows_that_are_all_far_off_alike_are_followed() -> None:
    # Each is 12 times the usual error off, where Cauchy's loss is nearly flat; moving costs (log 2 / 0.15)^2 = 21.
    rows = power_law({"x": [1] * 5}, {"x": 2.0})
    narrow = constant("x", Span(low=0.1, high=10.0, spread=0.15))
    found = fit([rows], [narrow])
    assert values(found)[0] == pytest.approx(2.0, rel=0.02)
    start = linearise([rows], [narrow], np.zeros(1))
    stuck = corrected([rows], [narrow], start, weights_of([rows]))
    assert math.exp(stuck.at[0]) < 1.5


def test_a_source_counts_as_ten_rows_at_most() -> None:
    large = power_law({"x": [1] * 500}, {"x": 1.01}, label="large")
    small = power_law({"x": [1] * 10}, {"x": 1 / 1.01}, label="small")
    assert values(fit([large, small], [constant("x")]))[0] == pytest.approx(1.0, abs=1e-4)
    assert np.sum(weights_of([large, small]) ** 2) == pytest.approx(20.0)
    parts = [
        power_law({"x": [1] * 30}, {"x": 1.0}, label="parts"),
        power_law({"x": [1] * 10}, {"x": 1.0}, label="parts"),
    ]
    assert np.sum(weights_of(parts) ** 2) == pytest.approx(10.0)
    kinds = [replace(part, kind=kind) for part, kind in zip(parts, ("products", "copies"), strict=True)]
    assert np.sum(weights_of(kinds) ** 2) == pytest.approx(20.0)


def test_a_row_of_less_confidence_counts_less() -> None:
    sure = power_law({"x": [1]}, {"x": 1.001}, label="sure")
    unsure = power_law({"x": [1]}, {"x": 1 / 1.001}, label="unsure", confidence=np.array([1 / 4]))
    # (4 x 0.1 % - 1 x 0.1 %) / 5.
    assert math.log(values(fit([sure, unsure], [constant("x")]))[0]) == pytest.approx(0.6 * math.log(1.001), rel=1e-2)


def test_the_standard_error_of_a_mean() -> None:
    # n rows of a scatter s that wish x where it is, beside a prior of spread p: 1 / sqrt(n / s^2 + 1 / p^2).
    noise = [0.02, -0.02] * 4
    rows = power_law({"x": [-1] * 8}, {"x": 1.0}, noise=noise)
    found = fit([rows], [constant("x", Span(low=0.1, high=10.0, spread=0.01))])
    scatter = 0.05 * math.sqrt(math.log1p(0.4**2))
    slope = 0.4 / (1.16 * math.sqrt(math.log1p(0.16)))  # of the robust error by the error, at 2 % of 5 %
    variance = 1 / (8 * (slope / scatter) ** 2 + 1 / 0.01**2)
    assert found.standard_errors[0] == pytest.approx(math.sqrt(variance), rel=1e-3)
    assert found.told[0] == pytest.approx(1 - variance / 0.01**2, rel=1e-3)


def test_more_rows_make_an_error_smaller_until_the_source_is_full() -> None:
    spans = [constant("x", Span(low=0.1, high=10.0, spread=0.3))]
    errors = [
        fit([power_law({"x": [1] * rows}, {"x": 1.0}, noise=[0.03, -0.03] * (rows // 2))], spans).standard_errors[0]
        for rows in (2, 4, 8, 20, 200)
    ]
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] == pytest.approx(errors[4], rel=1e-6)


def test_a_curved_law_is_followed() -> None:
    # A tenth of a second and x squared, measured where x is 3: at the start, x = 1, its slope is another.
    evidence = power_law({"x": [1, 1]}, {"x": 3.0})
    curved = replace(evidence, predict=lambda overlay: 0.1 + evidence.predict(overlay) ** 2, measured_s=np.full(2, 9.1))
    assert values(fit([curved], [constant("x")]))[0] == pytest.approx(3.0, rel=1e-3)


def test_a_constant_that_an_overlay_of_others_cannot_change_is_not_tried() -> None:
    tried: list[str] = []
    rows = power_law({"x": [1.0], "y": [1.0]}, {"x": 2.0, "y": 1.0})

    def watched(overlay: OverlayEntry) -> FloatArray:
        tried.append("")
        return rows.predict(overlay)

    only_x = replace(rows, predict=watched, entries=frozenset({("stacks", "x")}))
    near = linearise([only_x], [constant("x"), constant("y")], np.zeros(2))
    assert near.jacobian.tolist() == [[pytest.approx(1.0), 0.0]]
    assert len(tried) == 2


@settings(max_examples=30)
@given(
    exponents=st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=8),
    noise=st.lists(st.floats(-0.3, 0.3), min_size=8, max_size=8),
    spread=st.floats(0.05, 1.0),
)
def test_a_fit_is_no_worse_than_the_catalog(
    exponents: list[tuple[float, float]], noise: list[float], spread: float
) -> None:
    span = Span(low=0.5, high=2.0, spread=spread)
    constants = [constant("x", span), constant("y", span)]
    first, second = zip(*exponents, strict=True)
    rows = power_law({"x": first, "y": second}, {"x": 1.0, "y": 1.0}, noise=noise[: len(first)])
    found = fit([rows], constants)
    weights = weights_of([rows])
    start = linearise([rows], constants, np.zeros(2))
    assert cost(found.near.log_ratio, found.log_factors, constants, weights) <= cost(
        start.log_ratio, start.at, constants, weights
    )
    errors, told = uncertainty(found.near, constants, weights)
    assert np.all((errors > 0) & (errors <= spread * (1 + 1e-9)))
    assert np.all((told >= 0) & (told <= 1))


@pytest.fixture
def sources() -> Callable[[], list[Evidence]]:
    """Give a maker of three sources: two of x, and one of z that nothing else tells of."""
    return lambda: [
        power_law({"x": [1, 0.5], "z": [0, 0]}, {"x": 1.2, "z": 1.0}, label="a"),
        power_law({"x": [1] * 3, "z": [0] * 3}, {"x": 1.1, "z": 1.0}, label="b"),
        power_law({"x": [0] * 7, "z": [1] * 7}, {"x": 1.0, "z": 2.0}, label="c"),
    ]


def test_what_others_tell_of_is_left_out_whole_and_the_rest_in_fifths(sources: Callable[[], list[Evidence]]) -> None:
    evidence = sources()
    found = fit(evidence, [constant("x"), constant("z")])
    folds = list(folds_of(evidence, found))
    assert [(fold.label, fold.left_out) for fold in folds] == [
        ("a", LeftOut.WHOLE),
        ("b", LeftOut.WHOLE),
        *[("c", LeftOut.FIFTHS)] * 5,
    ]
    assert np.array_equal(sum(fold.rows.astype(int) for fold in folds), np.ones(12))
    assert folds[0].rows.tolist() == [True] * 2 + [False] * 10


def test_a_row_that_is_alone_cannot_be_left_out() -> None:
    evidence = [power_law({"x": [1]}, {"x": 1.2})]
    assert list(folds_of(evidence, fit(evidence, [constant("x")]))) == []


def test_a_left_out_row_is_predicted_as_by_a_fit_that_never_saw_it(sources: Callable[[], list[Evidence]]) -> None:
    evidence, constants = sources(), [constant("x"), constant("z")]
    found = fit(evidence, constants)
    for fold in folds_of(evidence, found):
        if fold.left_out is LeftOut.WHOLE:
            rest = [each for each in evidence if each.label != fold.label]
            alone = fit(rest, constants)
            (own,) = (each for each in evidence if each.label == fold.label)
            expected = linearise([own], constants, alone.log_factors).log_ratio
            assert log_ratio_without(fold, evidence, constants, found) == pytest.approx(expected, abs=1e-3)
    # Without a row of c the six others still say what z is.
    last = log_ratio_without(list(folds_of(evidence, found))[-1], evidence, constants, found)
    assert last == pytest.approx([0.0], abs=1e-3)
