"""Quantities: what their units mean, what is refused, and that printing and parsing are inverse."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from meshwright.catalog.quantity import (
    LARGEST,
    SMALLEST,
    Bytes,
    BytesPerSecond,
    FlopPerSecond,
    ParameterCount,
    Seconds,
    UsdPerHour,
    Watts,
    parse_quantity,
)

BYTES: TypeAdapter[int] = TypeAdapter(Bytes)
RATE: TypeAdapter[float] = TypeAdapter(BytesPerSecond)
FLOP_RATE: TypeAdapter[float] = TypeAdapter(FlopPerSecond)
TIME: TypeAdapter[float] = TypeAdapter(Seconds)
POWER: TypeAdapter[float] = TypeAdapter(Watts)
PRICE: TypeAdapter[float] = TypeAdapter(UsdPerHour)
PARAMETERS: TypeAdapter[float] = TypeAdapter(ParameterCount)


@pytest.mark.parametrize(
    ("adapter", "text", "expected"),
    [
        (BYTES, "80 GiB", 85_899_345_920),
        (BYTES, "80 GB", 80_000_000_000),
        (BYTES, "81559 MiB", 85_520_809_984),
        (BYTES, "1_000 B", 1_000),
        (BYTES, "60.97 GiB", 65_466_039_009),
        (RATE, "400 Gb/s", 50e9),
        (RATE, "400 GB/s", 400e9),
        (RATE, "400 GiB/s", 429_496_729_600.0),
        (RATE, "3.35 TB/s", 3.35e12),
        (FLOP_RATE, "989.4 TFLOP/s", 989.4e12),
        (FLOP_RATE, "1.5 PFLOP/s", 1.5e15),
        (TIME, "5 us", 5e-6),
        (TIME, "0.4 ms", 0.4e-3),
        (TIME, "2 min", 120.0),
        (POWER, "0.7 kW", 700.0),
        (PRICE, "2.70 USD/h", 2.7),
        (PARAMETERS, "70 B parameters", 70e9),
        (TIME, "  5us  ", 5e-6),
    ],
)
def test_units_have_their_sizes(adapter: TypeAdapter[float], text: str, expected: float) -> None:
    assert adapter.validate_python(text) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("adapter", "value"),
    [
        (BYTES, 80),
        (BYTES, 80.0),
        (BYTES, "80"),
        (BYTES, True),
        (BYTES, None),
        (BYTES, ["80 GiB"]),
        (BYTES, "80 Gb"),
        (BYTES, "80 gib"),
        (BYTES, "80 GB/s"),
        (BYTES, "-80 GiB"),
        (BYTES, "+80 GiB"),
        (BYTES, "0 GiB"),
        (BYTES, "0.1 B"),
        (BYTES, "9e18 GiB"),
        (BYTES, "GiB"),
        (BYTES, "80 GiB of HBM"),
        (BYTES, "8,0 GiB"),
        (BYTES, "٨ GiB"),
        (RATE, "400 Gb"),
        (RATE, "400 Gbps"),
        (RATE, "1e999 GB/s"),
        (RATE, "1e-999 GB/s"),
        (RATE, "1e-300 GB/s"),
        (RATE, "1.1e15 GB/s"),
        (TIME, "1e300 s"),
        (TIME, "0.9e-3 ns"),
        (RATE, "nan GB/s"),
        (RATE, "inf GB/s"),
        (FLOP_RATE, "989 TFLOPS"),
        (TIME, "5"),
        (TIME, "5 µs"),
        (PRICE, "2 EUR/h"),
    ],
)
def test_what_is_not_a_quantity_is_refused(adapter: TypeAdapter[float], value: object) -> None:
    with pytest.raises(ValidationError):
        adapter.validate_python(value)


def test_a_refusal_shows_the_text_and_a_unit_that_would_do() -> None:
    with pytest.raises(ValueError, match=r"'80 XB' is not a number.*\"1 MB\""):
        parse_quantity("80 XB", {"B": 1.0, "MB": 1e6})
    with pytest.raises(ValueError, match=r"needs a number with its unit.*not 80$"):
        parse_quantity(80, {"B": 1.0})


def test_a_value_of_another_world_is_told_the_bounds() -> None:
    assert parse_quantity("1e24 B", {"B": 1.0}) == LARGEST
    assert parse_quantity("1e-15 kB", {"kB": 1e3, "B": 1.0}) == pytest.approx(SMALLEST)
    with pytest.raises(ValueError, match=r"^'1e-300 kB' is not from 1e-12 to 1e\+24 B$"):
        parse_quantity("1e-300 kB", {"kB": 1e3, "B": 1.0})


@pytest.mark.parametrize(
    "text",
    ["1 a" + " " * 200_000 + "\n!", "1" * 200_000 + " GiB", " " * 200_000 + "1 GiB"],
    ids=["unit", "number", "blank"],
)
def test_a_long_text_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValidationError):
        BYTES.validate_python(text)


@given(st.integers(min_value=1, max_value=2**62))
def test_bytes_survive_printing(value: int) -> None:
    parsed = BYTES.validate_python(f"{value} B")
    assert parsed == value if value <= 2**53 else math.isclose(parsed, value, rel_tol=1e-15)


@given(
    st.floats(min_value=1e-9, max_value=1e9), st.sampled_from([("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("h", 3600.0)])
)
def test_times_survive_printing_in_any_unit(value: float, unit: tuple[str, float]) -> None:
    name, scale = unit
    assert TIME.validate_python(f"{value / scale!r} {name}") == pytest.approx(value, rel=1e-12)


@given(st.floats(min_value=1e-3, max_value=1e6))
def test_eight_bits_are_a_byte_and_binary_prefixes_are_larger(value: float) -> None:
    rate = RATE.validate_python
    assert rate(f"{value!r} Gb/s") * 8 == pytest.approx(rate(f"{value!r} GB/s"))
    assert rate(f"{value!r} GiB/s") == pytest.approx(rate(f"{value!r} GB/s") * 1.073741824)
