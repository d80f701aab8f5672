"""Quantities with units: "80 GiB", "400 Gb/s", "989 TFLOP/s", "5 us". They are parsed once, here, at the edge.

GB is 10^9 bytes, GiB is 2^30, Gb is 10^9 bits. A bare number is an error, never a guess. So is a value of another
world: what is computed from those between SMALLEST and LARGEST, in base units, stays far from the ends of floats.
"""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}

_BYTE_UNITS = {f"{prefix}B": scale for prefix, scale in (_DECIMAL | _BINARY).items()}
_RATE_UNITS = {f"{unit}/s": scale for unit, scale in _BYTE_UNITS.items()} | {
    f"{prefix}b/s": scale / 8 for prefix, scale in _DECIMAL.items()
}
_FLOP_RATE_UNITS = {f"{prefix}FLOP/s": scale for prefix, scale in _DECIMAL.items()}
_TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
_POWER_UNITS = {"W": 1.0, "kW": 1e3, "MW": 1e6}
_PRICE_UNITS = {"USD/h": 1.0}
_TRAFFIC_PRICE_UNITS = {"USD/GB": 1.0, "USD/TB": 1e-3}
_COUNT_UNITS = {"parameters": 1.0, "M parameters": 1e6, "B parameters": 1e9, "T parameters": 1e12}

SMALLEST, LARGEST = 1e-12, 1e24

_LONGEST = 100
_PATTERN = re.compile(r"\s*(?P<number>[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>[A-Za-z].*?)\s*")


def parse_quantity(text: object, units: dict[str, float]) -> float:
    """Give the value of `text` in the base unit of `units` (the one whose scale is 1).

    Raises ValueError with a sentence that names the units it takes.
    """
    expected = ", ".join(f'"1 {unit}"' for unit in list(units)[:8])
    if not isinstance(text, str):
        raise ValueError(f"needs a number with its unit (such as {expected}), not {text!r:.60}")  # noqa: TRY004
    match = _PATTERN.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None or match["unit"] not in units:
        raise ValueError(f"{text!r:.60} is not a number with one of its units (such as {expected})")
    value = float(match["number"].replace("_", "")) * units[match["unit"]]
    if not SMALLEST <= value <= LARGEST:
        base = next(unit for unit, scale in units.items() if scale == 1)
        raise ValueError(f"{text!r:.60} is not from {SMALLEST:g} to {LARGEST:g} {base}")
    return value


def print_quantity(value: float, units: dict[str, float]) -> str:
    """Give the shortest text that `parse_quantity` reads back as this value; of equals the first unit's."""
    numbers = ((value / scale, scale, unit) for unit, scale in units.items())
    return min((f"{_plain(number)} {unit}" for number, scale, unit in numbers if number * scale == value), key=len)


def _plain(number: float) -> str:
    return repr(float(number)).removesuffix(".0")


def _printer(units: dict[str, float]) -> PlainSerializer:
    def to_text(value: float) -> str:
        return print_quantity(value, units)

    return PlainSerializer(to_text, return_type=str, when_used="json")


def _quantity(units: dict[str, float]) -> BeforeValidator:
    def parse(text: Any) -> float:  # noqa: ANN401 - what a YAML file holds
        return parse_quantity(text, units)

    return BeforeValidator(parse)


def parse_bytes(text: Any) -> int:  # noqa: ANN401 - what a YAML file holds
    """Give whole bytes of "80 GiB". Raises ValueError with a sentence that names the units it takes."""
    value = round(parse_quantity(text, _BYTE_UNITS))
    if not 1 <= value < 2**63:
        raise ValueError(f"{text!r:.60} must be at least one byte and less than 2^63")
    return value


Bytes = Annotated[int, BeforeValidator(parse_bytes), _printer(_BYTE_UNITS)]
BytesPerSecond = Annotated[float, _quantity(_RATE_UNITS), _printer(_RATE_UNITS)]
FlopPerSecond = Annotated[float, _quantity(_FLOP_RATE_UNITS), _printer(_FLOP_RATE_UNITS)]
Seconds = Annotated[float, _quantity(_TIME_UNITS), _printer(_TIME_UNITS)]
Watts = Annotated[float, _quantity(_POWER_UNITS), _printer(_POWER_UNITS)]
UsdPerGigabyte = Annotated[float, _quantity(_TRAFFIC_PRICE_UNITS), _printer(_TRAFFIC_PRICE_UNITS)]
UsdPerHour = Annotated[float, _quantity(_PRICE_UNITS), _printer(_PRICE_UNITS)]
ParameterCount = Annotated[float, _quantity(_COUNT_UNITS), _printer(_COUNT_UNITS)]
