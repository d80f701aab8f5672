"""Reading a table of timed matrix products: CSV with a header, a product [m, k] x [k, n] a row.

columns                       | meaning
------------------------------|-------------------------------------------------------------------------------
m, n, k                       | rows, columns and inner size, whole numbers
precision or dtype            | bf16, fp16, fp8, mxfp8, nvfp4, fp32, or PyTorch's names (may be told apart instead)
time_us, latency_ms, ...      | the time, with its unit in the column's name: s, ms, us or ns
tflops, gflops                | the rate instead: 2 m n k operations over the time, in 10^12 or 10^9 a second
count or batch                | products in one launch, 1 where it is left out
device                        | rows of other devices than the asked one are left out

Other columns are ignored. Fields are parted by commas, semicolons or tabs; lines that start with # are comments.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from meshwright.catalog.errors import InputError
from meshwright.catalog.names import canonical_name
from meshwright.catalog.precision import Precision
from meshwright.hardware.device import Device
from meshwright.planner.calibration.log_text import number_between
from meshwright.planner.calibration.timing import MatmulTiming

LARGEST_SIZE = 10**9
SHORTEST_TIME_S = 1e-9
LONGEST_TIME_S = 1e6
# Boost clocks pass the clock of the data sheet's peak by up to a tenth; what is faster yet has another unit.
ABOVE_PEAK = 1.2

PRECISIONS = {
    **{precision.value: precision for precision in Precision},
    **dict.fromkeys(("bfloat16", "torch.bfloat16"), Precision.BF16),
    **dict.fromkeys(("float16", "half", "torch.float16"), Precision.FP16),
    **dict.fromkeys(("float32", "float", "tf32", "torch.float32"), Precision.FP32),
    **dict.fromkeys(("float8", "fp8_block", "fp8_e4m3", "float8_e4m3fn", "torch.float8_e4m3fn"), Precision.FP8),
}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_RATES = {"tflops": 1e12, "tflop_per_s": 1e12, "gflops": 1e9, "gflop_per_s": 1e9}
_TIME_NAME = re.compile(r"(?:[a-z_]+_)?(?:time|latency|duration|elapsed)(?:_[a-z]+)*?")
_TIME_COLUMN = re.compile(rf"{_TIME_NAME.pattern}_(s|ms|us|ns)")
_ALIASES = {"dtype": "precision", "batch": "count"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """Which field of a row is what; `measure` is the field of the time or the rate, `is_rate` tells which."""

    fields: Mapping[str, int]
    width: int
    measure: int
    measure_name: str
    scale: float
    is_rate: bool


def looks_like_matmul_table(text: str) -> bool:
    """Tell whether a text starts with a header that has columns m, n and k."""
    first = next((line for line in text.splitlines()[:100] if line.strip() and not line.startswith("#")), "")
    return {"m", "n", "k"} <= {name.strip().strip('"').casefold() for name in re.split(r"[,;\t]", first[:2000])}


def parse_matmul_table(
    text: str, *, file: str, device: Device, precision: Precision | None = None
) -> tuple[MatmulTiming, ...]:
    """Read the products of the text of a table that were timed on a device.

    Args:
        text: the table.
        file: its name, for errors.
        device: the device; a rate far above its peak is an error of the unit.
        precision: of tables without such a column.

    Raises InputError with file and line.

    """
    rows = _rows(text, file=file)
    header = next(rows, None)
    if header is None:
        raise InputError("is empty", file=file, hint="the first line names the columns: m,n,k,precision,time_us")
    form = _form(header[1], file=file, line=header[0], precision=precision)
    timings = tuple(
        _timing(values, form, file=file, line=line, device=device, precision=precision)
        for line, values in rows
        if _is_of(device, values, form, file=file, line=line)
    )
    if not timings:
        raise InputError(f"has no rows of {device.name} under its header", file=file)
    return timings


def _rows(text: str, *, file: str) -> Iterator[tuple[int, list[str]]]:
    """Give the stripped fields of each line that has any, with its number from 1."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for values in reader:
            if any(value.strip() for value in values) and not values[0].startswith("#"):
                yield reader.line_num, [value.strip() for value in values]
    except csv.Error as error:
        raise InputError(f"line {reader.line_num}: is not valid CSV: {error}", file=file) from None


def _form(header: list[str], *, file: str, line: int, precision: Precision | None) -> _Form:
    """Find the columns. Raises InputError where one is missing, given twice, or has no unit."""
    names = [name[:60].casefold().replace(" ", "_") for name in header]
    names = [_ALIASES.get(name, name) for name in names]
    fields = {name: index for index, name in enumerate(names) if name}
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"line {line}: the column {twice!r:.40} is given twice", file=file)
    needed = ("m", "n", "k", *(() if precision else ("precision",)))
    for name in needed:
        if name not in fields:
            raise InputError(
                f"line {line}: there is no column {name!r}",
                file=file,
                hint="the first line names the columns: m,n,k,precision,time_us"
                + ("; --precision bf16 tells the format of all rows" if name == "precision" else ""),
            )
    name, scale, is_rate = _measure(names, file=file, line=line)
    return _Form(fields=fields, width=len(names), measure=fields[name], measure_name=name, scale=scale, is_rate=is_rate)


def _measure(names: list[str], *, file: str, line: int) -> tuple[str, float, bool]:
    """Give the column of the time, or else of the rate: its name, its unit, and whether it is a rate."""
    times = [(name, _SECONDS[match[1]], False) for name in names if (match := _TIME_COLUMN.fullmatch(name))]
    rates = [(name, _RATES[name], True) for name in names if name in _RATES]
    found = times or rates
    if len(found) > 1:
        raise InputError(
            f"line {line}: both {found[0][0]!r:.40} and {found[1][0]!r:.40} could be the time",
            file=file,
            hint="keep one",
        )
    if not found:
        bare = next((name for name in names if _TIME_NAME.fullmatch(name)), None)
        raise InputError(
            f"line {line}: the column {bare!r:.40} has no unit" if bare else f"line {line}: no column is a time",
            file=file,
            hint="name it with its unit: time_us, time_ms, time_s, or tflops for a rate",
        )
    return found[0]


def _is_of(device: Device, values: list[str], form: _Form, *, file: str, line: int) -> bool:
    if len(values) != form.width:
        raise InputError(
            f"line {line}: has {len(values)} fields, where the header names {form.width}",
            file=file,
            hint="leave the row out if the table was cut off there",
        )
    named = form.fields.get("device")
    return named is None or canonical_name(values[named]) == canonical_name(device.name)


def _timing(
    values: list[str], form: _Form, *, file: str, line: int, device: Device, precision: Precision | None
) -> MatmulTiming:
    rows, columns, inner, count = (
        _size(values[form.fields[name]], name, file=file, line=line) if name in form.fields else 1
        for name in ("m", "n", "k", "count")
    )
    told = values[form.fields["precision"]] if "precision" in form.fields else None
    chosen = _chosen(told, precision, file=file, line=line)
    flop = 2.0 * count * rows * columns * inner
    time_s = _time_s(values[form.measure], flop, form, file=file, line=line)
    if flop / time_s > ABOVE_PEAK * device.peak(chosen):
        raise InputError(
            f"line {line}: {flop / time_s / 1e12:,.0f} TFLOP/s is more than {device.name} can do in {chosen}, "
            f"{device.peak(chosen) / 1e12:,.0f}",
            file=file,
            hint=f"check the unit of {form.measure_name}, and that m, n and k are those of one product",
        )
    return MatmulTiming(
        rows=rows,
        columns=columns,
        inner=inner,
        count=count,
        precision=chosen,
        time_s=time_s,
        place=f"{file}: line {line}",
    )


def _size(text: str, name: str, *, file: str, line: int) -> int:
    size = int(text) if re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) else 0
    if not 1 <= size <= LARGEST_SIZE:
        raise InputError(
            f"line {line}: {name} {text!r:.40} is not a whole number from 1 to {LARGEST_SIZE:,}", file=file
        )
    return size


def _time_s(text: str, flop: float, form: _Form, *, file: str, line: int) -> float:
    if form.is_rate:
        rate = number_between(text, 1e-6, 1e9, what=f"{form.measure_name:.40}", file=file, line=line)
        return flop / (rate * form.scale)
    least, most = SHORTEST_TIME_S / form.scale, LONGEST_TIME_S / form.scale
    return number_between(text, least, most, what=f"{form.measure_name:.40}", file=file, line=line) * form.scale


def _chosen(told: str | None, given: Precision | None, *, file: str, line: int) -> Precision:
    """Give the precision that a row tells; where it tells none that is known, the given one."""
    if given is None or told is None:
        return given or _precision(told or "", file=file, line=line)
    known = PRECISIONS.get(told.casefold(), given)
    if known is not given:
        raise InputError(
            f"line {line}: the row tells of {known}, and --precision says {given}",
            file=file,
            hint="leave out --precision, which is for tables that don't tell",
        )
    return given


def _precision(text: str, *, file: str, line: int) -> Precision:
    found = PRECISIONS.get(text.casefold())
    if found is None:
        raise InputError(
            f"line {line}: {text!r:.40} is not a known precision",
            file=file,
            hint=f"it is one of {', '.join(Precision)}; --precision tells that of all rows",
        )
    return found
