"""The runs of tests of collectives that a log holds, and the ranks and nodes that each spans.

A run begins with its parameters ("# nThread 1 nGpus 1 ...", "the minbytes is ..."), before which newer releases print
the test's name, and some logs the command. Ranks and hosts come from the lines "# Rank 0 ... on HOST device 0", else
from the mpirun command.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

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
from meshwright.planner.calibration.timing import Collective

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

_RANK = re.compile(
    r"\bRank\s+([0-9]{1,7})\s+(?:Group\s+[0-9]+\s+)?Pid\s+[0-9]+\s+on\s+(\S+)\s+device\b(?:\s*[0-9]+\s+\[[^\]]*\]\s+(\S.*))?"
)
_START = re.compile(r"\bnThread\s+[0-9]+\s+nGpus\s+[0-9]+|\bthe minbytes is [0-9]+")
_TEST = re.compile(rf"(?<![\w.-])({'|'.join((*NAMES, *UNUSED))})(?:_perf(?:_mpi)?|_test)(?![\w.-])")
_TABLE = re.compile(rf"{HCCL_HEADER.pattern}|{NCCL_HEADER.pattern}|{_RANK.pattern}|{_START.pattern}")


@dataclass(slots=True, kw_only=True)
class Run:
    """What one run of a test printed, as far as it has been read. `told_*` come from the command that it echoes.

    chips: the names of devices beside the ranks, each with the first line that has it.
    """

    name: str = ""
    told_ranks: int = 0
    told_per_node: int = 0
    hosts: dict[int, str] = field(default_factory=dict)
    rank_lines: int = 0
    chips: dict[str, int] = field(default_factory=dict)
    hccl: bool = False
    rows: list[CollectiveRow] = field(default_factory=list)


def looks_like_collective_log(text: str) -> bool:
    """Tell whether a text is the output of one of the tests."""
    return any(_TABLE.search(line) for _, line in log_lines(text))


def runs_of(text: str, *, file: str) -> Iterator[Run]:
    """Part a log into its tests: each begins with its parameters, after its command or its name if one is printed."""
    run, announced = Run(), Run()
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
            run, announced = announced, Run()
        run.hccl = run.hccl or header is not None
        if match := _RANK.search(content):
            run.hosts[int(match[1])] = match[2]
            run.rank_lines += 1
            if match[3]:
                run.chips.setdefault(match[3].strip(), line)
        if match := _TEST.search(content):
            announced = _announced(content, match, announced)
    yield run


def _announced(content: str, match: re.Match[str], before: Run) -> Run:
    """Read a command ("mpirun -n 16 ./bin/all_reduce_test -b 8K -p 8"), or another line that names the test."""
    if "concluded" in content:
        return before
    processes = re.search(r"(?<!\S)--?np?\s+([0-9]{1,7})(?!\S)", content[: match.start()])
    per_node = re.search(r"(?<!\S)(?:-p|--npus)\s+([0-9]{1,7})(?!\S)", content[match.end() :])
    if before.name == match[1] and processes is None:
        return before
    return Run(
        name=match[1],
        told_ranks=int(processes[1]) if processes else 0,
        told_per_node=int(per_node[1]) if per_node else 0,
    )


def group_of(run: Run, *, ranks: int | None, nodes: int | None, file: str) -> tuple[int, int]:
    """Give how many ranks and nodes a run spans.

    Raises InputError where that isn't told, is uneven, or is another number than was given.
    """
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
    _require_given("--ranks", ranks, size, told="rank", line=line, file=file)
    _require_given("--nodes", nodes, machines, told="node", line=line, file=file)
    if size < 2:
        raise InputError(
            f"line {line}: the test ran on one rank, which exchanges nothing",
            file=file,
            hint="run it over several devices; under mpirun build nccl-tests with MPI=1",
        )
    if size % machines:
        raise InputError(f"line {line}: {size} ranks aren't spread evenly over {machines} nodes", file=file)
    return size, machines


def _require_given(option: str, given: int | None, found: int, *, told: str, line: int, file: str) -> None:
    if given is not None and given != found:
        raise InputError(
            f"line {line}: the log tells of {found} {told}{'s' if found > 1 else ''}, and {option} says {given}",
            file=file,
            hint=f"leave out {option}, which is for logs that don't tell",
        )


def _told_by_rank_lines(run: Run, *, file: str) -> tuple[int, int]:
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
