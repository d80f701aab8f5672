"""Reading the output of nccl-tests, rccl-tests and hccl_test.

The size of a row is the whole buffer of every collective, `algbw` is that over the time, and `busbw` is algbw times a
factor of the collective and the n ranks: 2 (n - 1) / n for an all-reduce, (n - 1) / n for an all-gather, a
reduce-scatter and an all-to-all, 1 for send and receive (NVIDIA/nccl-tests, doc/PERFORMANCE.md). Both are held against
what they should be, so that a table of another unit, collective or size is refused instead of believed. Ranks and hosts
come from the lines "# Rank 0 ... on HOST device 0", else from the mpirun command where the log echoes it.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from meshwright.catalog.document import read_text
from meshwright.catalog.errors import InputError
from meshwright.planner.calibration.collective_rows import (
    HCCL_HEADER,
    NCCL_HEADER,
    CollectiveRow,
    hccl_row,
    nccl_row,
    require_microseconds,
)
from meshwright.planner.calibration.log_text import log_lines
from meshwright.planner.calibration.timing import Collective, CollectiveTiming

NAMES = {
    "all_reduce": Collective.ALL_REDUCE,
    "allreduce": Collective.ALL_REDUCE,
    "all_gather": Collective.ALL_GATHER,
    "allgather": Collective.ALL_GATHER,
    "reduce_scatter": Collective.REDUCE_SCATTER,
    "reducescatter": Collective.REDUCE_SCATTER,
    "alltoall": Collective.ALL_TO_ALL,
    "all_to_all": Collective.ALL_TO_ALL,
    "sendrecv": Collective.SEND_RECV,
}
UNUSED = ("broadcast", "reduce", "gather", "scatter", "hypercube", "alltoallv", "all_gather_v", "reduce_scatter_v")
MOST_RANKS = 10**6
# Times are printed to three digits or more, bandwidths to 0.01 GB/s, or to 0.00001 by hccl_test.
ROUNDING = 0.02
NCCL_ROUNDING_BYTES_PER_S = 0.006e9
HCCL_ROUNDING_BYTES_PER_S = 0.006e6

_RANK = re.compile(r"\bRank\s+([0-9]{1,7})\s+(?:Group\s+[0-9]+\s+)?Pid\s+[0-9]+\s+on\s+(\S+)\s+device\b")
_START = re.compile(r"\bnThread\s+[0-9]+\s+nGpus\s+[0-9]+|\bthe minbytes is [0-9]+")
_TEST = re.compile(rf"(?<![\w.-])({'|'.join((*NAMES, *UNUSED))})(?:_perf(?:_mpi)?|_test)(?![\w.-])")
_TABLE = re.compile(rf"{HCCL_HEADER.pattern}|{NCCL_HEADER.pattern}|{_RANK.pattern}|{_START.pattern}")


@dataclass(slots=True, kw_only=True)
class _Run:
    """What one run of a test printed, as far as it has been read. `told_*` come from the command that it echoes."""

    name: str = ""
    told_ranks: int = 0
    told_per_node: int = 0
    hosts: dict[int, str] = field(default_factory=dict)
    rank_lines: int = 0
    hccl: bool = False
    rows: list[CollectiveRow] = field(default_factory=list)


def looks_like_collective_log(text: str) -> bool:
    """Tell whether a text is the output of one of the tests."""
    return any(_TABLE.search(line) for _, line in log_lines(text))


def read_collective_log(
    path: Path, *, collective: Collective | None = None, ranks: int | None = None, nodes: int | None = None
) -> tuple[CollectiveTiming, ...]:
    """Read the rows of a log, which may hold several tests.

    Empty messages, and tests of collectives that training doesn't use, are left out.

    Args:
        path: the log.
        collective: of the tests that the log doesn't name.
        ranks: of the tests whose ranks it doesn't list.
        nodes: over which those are spread, evenly.

    Raises InputError with file and line where a row is cut off, failed its check or contradicts itself, where nothing
    of use is left, and where one of the above is needed.

    """
    return parse_collective_log(read_text(path), file=str(path), collective=collective, ranks=ranks, nodes=nodes)


def parse_collective_log(
    text: str, *, file: str, collective: Collective | None = None, ranks: int | None = None, nodes: int | None = None
) -> tuple[CollectiveTiming, ...]:
    """Do the same for the text of a log."""
    found: list[CollectiveTiming] = []
    unused: set[str] = set()
    for run in _runs(text, file=file):
        if run.name in UNUSED:
            unused.add(run.name)
        elif run.rows:
            size, machines = _group(run, ranks=ranks, nodes=nodes, file=file)
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


def _runs(text: str, *, file: str) -> Iterator[_Run]:
    """Part a log into its tests: each begins with its parameters, after its command or its name if one is printed."""
    run, announced = _Run(), _Run()
    for line, content in log_lines(text):
        row = nccl_row(content, file=file, line=line)
        if row is None and run.hccl:
            row = hccl_row(content, file=file, line=line)
        if row is not None:
            run.rows += [row] if row.size_bytes > 0 else []
            continue
        require_microseconds(content, file=file, line=line)
        header = HCCL_HEADER.search(content)
        if _START.search(content) or (run.rows and (header or NCCL_HEADER.search(content))):
            yield run
            run, announced = announced, _Run()
        run.hccl = run.hccl or header is not None
        if match := _RANK.search(content):
            run.hosts[int(match[1])] = match[2]
            run.rank_lines += 1
        if match := _TEST.search(content):
            announced = _announced(content, match, announced)
    yield run


def _announced(content: str, match: re.Match[str], before: _Run) -> _Run:
    """Read a command ("mpirun -n 16 ./bin/all_reduce_test -b 8K -p 8"), or another line that names the test."""
    if "concluded" in content:
        return before
    processes = re.search(r"(?<!\S)--?np?\s+([0-9]{1,7})(?!\S)", content[: match.start()])
    per_node = re.search(r"(?<!\S)(?:-p|--npus)\s+([0-9]{1,7})(?!\S)", content[match.end() :])
    if before.name == match[1] and processes is None:
        return before
    return _Run(
        name=match[1],
        told_ranks=int(processes[1]) if processes else 0,
        told_per_node=int(per_node[1]) if per_node else 0,
    )


def _group(run: _Run, *, ranks: int | None, nodes: int | None, file: str) -> tuple[int, int]:
    """Give how many ranks and nodes a run spans. Raises InputError where that isn't told, or uneven."""
    line = run.rows[0].line
    if run.hosts:
        size, machines = _told_by_rank_lines(run, file=file)
    else:
        size = run.told_ranks or ranks or 0
        machines = -(-size // run.told_per_node) if run.told_per_node else nodes or 0
        if not 0 < size <= MOST_RANKS or machines < 1:
            raise InputError(
                f"line {line}: the log doesn't tell how many ranks on how many nodes ran the test",
                file=file,
                hint="give --ranks and --nodes, or leave in the log's head the mpirun command",
            )
    if size < 2:
        raise InputError(
            f"line {line}: the test ran on one rank, which exchanges nothing",
            file=file,
            hint="run it over several devices; under mpirun build nccl-tests with MPI=1",
        )
    if size % machines:
        raise InputError(f"line {line}: {size} ranks aren't spread evenly over {machines} nodes", file=file)
    return size, machines


def _told_by_rank_lines(run: _Run, *, file: str) -> tuple[int, int]:
    line = run.rows[0].line
    size = len(run.hosts)
    if size > 1 and (set(run.hosts) != set(range(size)) or run.rank_lines != size):
        raise InputError(
            f"line {line}: the lines above list {run.rank_lines} ranks that aren't 0 to {max(run.hosts)}, each once",
            file=file,
            hint="give the whole output of one test after the other",
        )
    each = Counter(run.hosts.values())
    if len(set(each.values())) > 1:
        raise InputError(f"line {line}: the nodes have {min(each.values())} to {max(each.values())} ranks", file=file)
    return size, len(each)


def factor(collective: Collective, ranks: int) -> float:
    """Give bus bandwidth over algorithm bandwidth (NVIDIA/nccl-tests, doc/PERFORMANCE.md)."""
    if collective is Collective.SEND_RECV:
        return 1.0
    return (2.0 if collective is Collective.ALL_REDUCE else 1.0) * (ranks - 1) / ranks


def _inferred(run: _Run, ranks: int, *, file: str) -> Collective:
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
        _close(row.bus_bytes_per_s, row.algorithm_bytes_per_s * factor(collective, ranks))
        and abs(counted - row.size_bytes) <= ROUNDING * row.size_bytes
        and (row.reduces is not False or collective not in reducing)
        and (row.reduces is not True or collective in {*reducing, Collective.SEND_RECV})
    )


def _close(
    printed_bytes_per_s: float, expected_bytes_per_s: float, rounding_bytes_per_s: float = NCCL_ROUNDING_BYTES_PER_S
) -> bool:
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
    if bus is not None and not _close(bus, row.algorithm_bytes_per_s * factor(collective, ranks)):
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
    rounding = HCCL_ROUNDING_BYTES_PER_S if hccl else NCCL_ROUNDING_BYTES_PER_S
    return next((size for size in sizes if _close(row.algorithm_bytes_per_s, size / row.time_s, rounding)), None)
