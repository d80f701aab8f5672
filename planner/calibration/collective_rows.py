"""One row of the table that a test of collectives prints, a message size each.

nccl-tests and rccl-tests, of which the out-of-place columns are taken:

    size  count  type  [redop]  [root]  time (us)  algbw (GB/s)  busbw (GB/s)  #wrong  [the same four in place]

hccl_test:

    data_size(Bytes): | aveg_time(us): | alg_bandwidth(GB/s): | check_result:

whose bars are missing where a log was pasted through a table or printed by a script around the tool.

Sources: NVIDIA/nccl-tests (src/common.cu), ROCm/rccl-tests, the HCCL Performance Tester pages of CANN 8.0 and 8.5.
"""

import re
from dataclasses import dataclass

from meshwright.catalog.errors import InputError
from meshwright.planner.calibration.log_text import half_unit, number_between

LONGEST_TIME_US = 1e9
SHORTEST_TIME_US = 1e-3
LARGEST_BYTES = 1e15

HCCL_HEADER = re.compile(r"data_size\(Bytes\)[\s:|]+(?:aveg|avg)_time\(us\)[\s:|]+alg_bandwidth\(GB/s\)")
NCCL_HEADER = re.compile(r"\(B\)\s+\(elements\)\s+(\([^)]*\))")

_ELEMENT_BYTES = {
    **dict.fromkeys(("int8", "uint8", "char", "fp8_e4m3", "fp8_e5m2", "f8e4m3", "f8e5m2"), 1),
    **dict.fromkeys(("half", "float16", "bfloat16", "bfloat"), 2),
    **dict.fromkeys(("int32", "uint32", "int", "float", "float32"), 4),
    **dict.fromkeys(("int64", "uint64", "double", "float64"), 8),
}
_OPERATIONS = frozenset({"sum", "prod", "max", "min", "avg", "mulsum", "none"})
_NCCL_ROW = re.compile(rf"(?<![\w.])([0-9]+)\s+([0-9]+)\s+({'|'.join(_ELEMENT_BYTES)})\b(.*)")
_HCCL_ROW = re.compile(r"(?<![\w.])([0-9]+)[\s|]+([^\s|]+)[\s|]+([^\s|]+)[\s|]+(success|failed|NULL)\b")
# A time has two digits behind its point: so a row that was cut off is told from what else a log prints.
_HCCL_START = re.compile(r"(?<![\w.])[0-9]+\s*\||(?:^|[>:\]])\s*[0-9]+\s+[0-9]+\.[0-9]{2}(?![0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveRow:
    """One size; the bandwidths in bytes/s. Roundings: by how much what is printed may differ from what it was.

    counted_bytes: bytes of the `count` column, which is a rank's share for some collectives.
    bus_bytes_per_s, reduces, counted_bytes: None where the tool prints none.
    """

    line: int
    size_bytes: float
    time_s: float
    time_rounding_s: float
    algorithm_bytes_per_s: float
    algorithm_rounding_bytes_per_s: float
    bus_bytes_per_s: float | None = None
    bus_rounding_bytes_per_s: float = 0.0
    reduces: bool | None = None
    counted_bytes: float | None = None


def nccl_row(text: str, *, file: str, line: int) -> CollectiveRow | None:
    """Read a row of nccl-tests; None where the line is none. Raises InputError where the row isn't whole or right."""
    match = _NCCL_ROW.search(text)
    if match is None:
        return None
    values = match[4].split()
    operation = values.pop(0) if values and values[0] in _OPERATIONS else None
    if len(values) in {5, 9}:
        values.pop(0)  # the root
    if len(values) not in {4, 8}:
        raise _broken(text, file=file, line=line)
    if re.fullmatch(r"[0-9]*[1-9][0-9]*", values[3]):
        raise InputError(
            f"line {line}: the test found {values[3]:.12} wrong values",
            file=file,
            hint="a collective that gives wrong results can't be calibrated with",
        )
    size, time_s, algorithm, bus = _numbers(match[1], *values[:3], file=file, line=line)
    count = number_between(match[2], 0, LARGEST_BYTES, what="the count", file=file, line=line)
    return CollectiveRow(
        line=line,
        size_bytes=size,
        time_s=time_s,
        time_rounding_s=half_unit(values[0]) * 1e-6,
        algorithm_bytes_per_s=algorithm,
        algorithm_rounding_bytes_per_s=_rounding_bytes_per_s(values[1]),
        bus_bytes_per_s=bus,
        bus_rounding_bytes_per_s=_rounding_bytes_per_s(values[2]),
        reduces=operation is not None and operation != "none",
        counted_bytes=count * _ELEMENT_BYTES[match[3]],
    )


def hccl_row(text: str, *, file: str, line: int) -> CollectiveRow | None:
    """Read a row of hccl_test; None where the line is none. Raises InputError where the row isn't whole or right."""
    match = _HCCL_ROW.search(text)
    if match is None and not _HCCL_START.search(text):
        return None
    if match is None:
        raise _broken(text, file=file, line=line)
    if match[4] == "failed":
        raise InputError(
            f"line {line}: the check of the result failed",
            file=file,
            hint="a collective that gives wrong results can't be calibrated with",
        )
    size, time_s, algorithm, _ = _numbers(match[1], match[2], match[3], "0", file=file, line=line)
    return CollectiveRow(
        line=line,
        size_bytes=size,
        time_s=time_s,
        time_rounding_s=half_unit(match[2]) * 1e-6,
        algorithm_bytes_per_s=algorithm,
        algorithm_rounding_bytes_per_s=_rounding_bytes_per_s(match[3]),
    )


def require_microseconds(text: str, *, file: str, line: int) -> None:
    """Raise InputError where a header of nccl-tests gives the time another unit."""
    match = NCCL_HEADER.search(text)
    if match and match[1] != "(us)":
        raise InputError(f"line {line}: the time column is in {match[1]:.20}, not in (us)", file=file)


def _broken(text: str, *, file: str, line: int) -> InputError:
    return InputError(
        f"line {line}: the row isn't whole: {' '.join(text.split())!r:.80}",
        file=file,
        hint="leave it out if the test was stopped there",
    )


def _rounding_bytes_per_s(bandwidth: str) -> float:
    return half_unit(bandwidth) * 1e9


def _numbers(
    size: str, time_us: str, algorithm: str, bus: str, *, file: str, line: int
) -> tuple[float, float, float, float]:
    """Give bytes, seconds and the two bandwidths in bytes/s."""
    size_bytes = number_between(size, 0, LARGEST_BYTES, what="the size", file=file, line=line)
    least_us = SHORTEST_TIME_US if size_bytes else 0.0
    return (
        size_bytes,
        number_between(time_us, least_us, LONGEST_TIME_US, what="the time in us", file=file, line=line) * 1e-6,
        number_between(algorithm, 0, 1e6, what="the bandwidth in GB/s", file=file, line=line) * 1e9,
        number_between(bus, 0, 1e6, what="the bus bandwidth in GB/s", file=file, line=line) * 1e9,
    )
