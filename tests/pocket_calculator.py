"""Worked examples of `docs/`: lines of arithmetic that a reader can do again with a pocket calculator."""

import math
import re

UNITS = {
    "TFLOP/s": 1e12,
    "TFLOP": 1e12,
    "GFLOP": 1e9,
    "TB/s": 1e12,
    "GB/s": 1e9,
    "GB": 1e9,
    "MB": 1e6,
    "kB": 1e3,
    "GiB": 2**30,
    "MiB": 2**20,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "%": 1e-2,
}
_NUMBER = re.compile(
    r"(?<![\w.])(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)"
    rf"(?: (?P<unit>{'|'.join(map(re.escape, UNITS))})(?![\w/]))?"
)
_FUNCTIONS = {"sqrt": math.sqrt, "max": max, "min": min}
_GAP = "  "


def work_out(arithmetic: str) -> float:
    """Give the value of printed arithmetic in base units: `max(2 ms, 3,000 us) x 4` is 0.012."""

    def plain(found: re.Match[str]) -> str:
        return repr(float(found["number"].replace(",", "")) * UNITS.get(found["unit"], 1.0))

    python = _NUMBER.sub(plain, arithmetic).replace(" x ", " * ").replace("^", "**")
    return float(eval(python, {"__builtins__": {}}, _FUNCTIONS))


def printed(value: float, unit: str = "") -> str:
    """Write a value with four digits, or whole, and its unit."""
    amount = value / UNITS.get(unit, 1.0)
    text = f"{amount:#.4g}"
    if abs(amount) >= 1000 or math.isclose(amount, round(amount), rel_tol=1e-9):
        text = f"{amount:,.0f}"
    return f"{text} {unit}".strip()


class Sheet:
    """The lines of a worked example: what it is, the arithmetic, the result, and the function that gives it too."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, ...]] = []

    def head(self, text: str) -> None:
        """Open a part of the example."""
        if self._lines:
            self._lines.append(("",))
        self._lines.append((text,))

    def given(self, name: str, value: float, unit: str = "", *, by: str = "") -> str:
        """Write what the example starts from; `by` is the function that gives it. Give it as printed."""
        result = printed(value, unit)
        self._lines.append((name, "", result, by))
        return result

    def line(self, name: str, arithmetic: str, unit: str = "", *, by: str = "", model: float | None = None) -> str:
        """Write a line; `model` is what the cost model's function `by` gives. Give the result as printed."""
        result = printed(work_out(arithmetic) if model is None else model, unit)
        self._lines.append((name, arithmetic, f"= {result}", by))
        return result

    def text(self) -> str:
        """Give the example as lines in columns."""
        rows = [line for line in self._lines if len(line) > 1]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "".join(
            _GAP.join(cell.ljust(width) for cell, width in zip(line, (*widths, 0), strict=False)).rstrip() + "\n"
            if len(line) > 1
            else f"{line[0]}\n"
            for line in self._lines
        )
