"""Reading the output of nccl-tests, rccl-tests and hccl_test.

The size of a row is the whole buffer of every collective, `algbw` is that over the time, and `busbw` is algbw times a
factor of the collective and the n ranks: 2 (n - 1) / n for an all-reduce, (n - 1) / n for an all-gather, a
reduce-scatter and an all-to-all, 1 for send and receive (NVIDIA/nccl-tests, doc/PERFORMANCE.md). Both are held against
what they should be, so that a table of another unit, collective or size is refused instead of believed. They are known
to half a unit of the last digit printed, h, which for small messages may be more than they are:

    |algbw - size / time| <= h(algbw) + size / time h(time) / time
    |busbw - factor algbw| <= h(busbw) + factor h(algbw)

and 2 % beyond, for what tables were made of by others.
"""

from meshwright.catalog.errors import InputError
from meshwright.planner.calibration.collective_rows import CollectiveRow
from meshwright.planner.calibration.collective_run import NAMES, UNUSED, Run, group_of, runs_of
from meshwright.planner.calibration.printed_chip import require_chips
from meshwright.planner.calibration.timing import Collective, CollectiveTiming

ROUNDING = 0.02


def parse_collective_log(
    text: str,
    *,
    file: str,
    collective: Collective | None = None,
    ranks: int | None = None,
    nodes: int | None = None,
    device: str | None = None,
) -> tuple[CollectiveTiming, ...]:
    """Read the rows of the text of a log, which may hold several tests.

    Empty messages, and tests of collectives that training doesn't use, are left out.

    Args:
        text: the log.
        file: its name, for errors.
        collective: of the tests that the log doesn't name.
        ranks: of the tests whose ranks it doesn't list.
        nodes: over which those are spread, evenly.
        device: catalog name of what the tests have to have run on, where they say that; None takes any.

    Raises InputError with file and line where a row is cut off, failed its check or contradicts itself, where a test
    ran on another device, where nothing of use is left, and where one of the above is needed.

    """
    found: list[CollectiveTiming] = []
    unused: set[str] = set()
    for run in runs_of(text, file=file):
        if run.name in UNUSED:
            unused.add(run.name)
        elif run.rows:
            if device is not None:
                require_chips(run.chips, device, file=file)
            size, machines = group_of(run, ranks=ranks, nodes=nodes, file=file)
            which = NAMES.get(run.name) or collective or _inferred(run, size, file=file)
            found += (_timing(row, which, ranks=size, nodes=machines, file=file) for row in run.rows)
    if not found:
        told = f", only of {', '.join(sorted(unused))}, which training doesn't use" if unused else ""
        raise InputError(
            f"holds no timings of a collective{told}",
            file=file,
            hint="give the output of nccl-tests, rccl-tests or hccl_test for messages of more than 0 bytes",
        )
    return tuple(found)


def factor(collective: Collective, ranks: int) -> float:
    """Give bus bandwidth over algorithm bandwidth (NVIDIA/nccl-tests, doc/PERFORMANCE.md)."""
    if collective is Collective.SEND_RECV:
        return 1.0
    return (2.0 if collective is Collective.ALL_REDUCE else 1.0) * (ranks - 1) / ranks


def _inferred(run: Run, ranks: int, *, file: str) -> Collective:
    """Tell the collective by what sets it apart: the factor, whether it reduces, and what `count` counts.

    Raises InputError where two are alike: an all-gather and an all-to-all, or anything on two ranks without a name.
    """
    row = max(run.rows, key=lambda row: row.algorithm_bytes_per_s)
    alike = [which for which in Collective if _resembles(row, which, ranks)]
    if len(alike) != 1:
        raise InputError(
            f"line {row.line}: the log doesn't tell which collective this is",
            file=file,
            hint=f"give --collective {'|'.join(alike or Collective)}",
        )
    return alike[0]


def _resembles(row: CollectiveRow, collective: Collective, ranks: int) -> bool:
    if row.bus_bytes_per_s is None or row.counted_bytes is None:
        return False
    reducing = {Collective.ALL_REDUCE, Collective.REDUCE_SCATTER}
    shared = collective not in {Collective.ALL_REDUCE, Collective.SEND_RECV}
    counted = row.counted_bytes * (ranks if shared else 1)
    return (
        _is_bus_of(row, row.bus_bytes_per_s, factor(collective, ranks))
        and abs(counted - row.size_bytes) <= ROUNDING * row.size_bytes
        and (row.reduces is not False or collective not in reducing)
        and (row.reduces is not True or collective in {*reducing, Collective.SEND_RECV})
    )


def _is_bus_of(row: CollectiveRow, bus_bytes_per_s: float, times: float) -> bool:
    """Tell whether a bus bandwidth may be so many times the bandwidth beside it, as far as both are printed."""
    rounding_bytes_per_s = row.bus_rounding_bytes_per_s + times * row.algorithm_rounding_bytes_per_s
    return _close(bus_bytes_per_s, times * row.algorithm_bytes_per_s, rounding_bytes_per_s)


def _close(printed_bytes_per_s: float, expected_bytes_per_s: float, rounding_bytes_per_s: float) -> bool:
    return abs(printed_bytes_per_s - expected_bytes_per_s) <= ROUNDING * expected_bytes_per_s + rounding_bytes_per_s


def _timing(row: CollectiveRow, collective: Collective, *, ranks: int, nodes: int, file: str) -> CollectiveTiming:
    """Raise InputError where the columns of the row contradict each other."""
    whole = _whole_bytes(row, ranks)
    if whole is None:
        raise InputError(
            f"line {row.line}: {row.size_bytes:.0f} bytes in {row.time_s * 1e6:g} us aren't "
            f"{row.algorithm_bytes_per_s / 1e9:g} GB/s",
            file=file,
            hint="sizes have to be in bytes, times in microseconds, bandwidths in GB/s of 10^9 bytes",
        )
    bus = row.bus_bytes_per_s
    if bus is not None and not _is_bus_of(row, bus, factor(collective, ranks)):
        raise InputError(
            f"line {row.line}: a bus bandwidth of {bus / 1e9:g} GB/s isn't that of {collective} over {ranks} ranks",
            file=file,
            hint="several tests in one file each need their own head",
        )
    return CollectiveTiming(
        collective=collective,
        ranks=ranks,
        nodes=nodes,
        whole_bytes=whole,
        time_s=row.time_s,
        place=f"{file}: line {row.line}",
    )


def _whole_bytes(row: CollectiveRow, ranks: int) -> float | None:
    """Give the bytes that the printed bandwidth is of; None where it is of nothing printed.

    Releases of hccl_test differ in whether an all-gather's size is a rank's share or the whole.
    """
    hccl = row.bus_bytes_per_s is None
    sizes = (row.size_bytes, row.size_bytes * ranks) if hccl else (row.size_bytes,)
    return next((size for size in sizes if _is_bandwidth_of(row, size)), None)


def _is_bandwidth_of(row: CollectiveRow, size_bytes: float) -> bool:
    """Tell whether the bandwidth of a row may be that of so many bytes in its time, as far as both are printed."""
    expected = size_bytes / row.time_s
    rounding_bytes_per_s = row.algorithm_rounding_bytes_per_s + expected * row.time_rounding_s / row.time_s
    return _close(row.algorithm_bytes_per_s, expected, rounding_bytes_per_s)
