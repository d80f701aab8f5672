"""Measured optimizer steps of offloaded training, from a table of comma-separated values.

Columns: `tp`, `dp` ranks; `layers`, `hidden` of a GPT with the vocabulary of GPT-2, 50304; `cpu_ratio` the share that
isn't resident; `prefetch` 1 where streams and updates overlap; `gap` every how manieth subgroup streams then (0 or
nothing: none); `step_ms` milliseconds of the optimizer's step. `machine` tells machines apart (one where it is left
out), `model_B` names a size. Other columns are left alone.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from meshwright.catalog.document import read_text
from meshwright.catalog.errors import InputError

VOCABULARY = 50304
COLUMNS = ("tp", "dp", "layers", "hidden", "cpu_ratio", "prefetch", "gap", "step_ms")
MOST_RUNS = 100_000
RANKS_A_NODE = 4
# A step of which nothing is on the host says nothing about it.
LEAST_SHARE = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measured step. parameters: of a rank, 12 L h^2 + V h over all ranks; cpu, streamed: shares of them."""

    machine: str
    size: str
    parameters: float
    ranks: int
    cpu: float
    streamed: float
    overlapped: bool
    step_s: float


def read_runs(path: Path, *, ranks_a_node: int = RANKS_A_NODE) -> tuple[Run, ...]:
    """Read runs, of nodes of so many ranks at most. Raises InputError with the line and column of what is wrong."""
    rows = csv.DictReader(io.StringIO(read_text(path)))
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise InputError(
            f"has no column {missing[0]!r}",
            file=str(path),
            path="line 1",
            hint=f"runs have the columns {', '.join(COLUMNS)}",
        )
    runs = tuple(_run(row, file=str(path), line=line, ranks_a_node=ranks_a_node) for line, row in enumerate(rows, 2))
    if not 0 < len(runs) <= MOST_RUNS:
        raise InputError(f"has {len(runs)} runs, not 1 to {MOST_RUNS}", file=str(path))
    return runs


def _run(row: dict[str, str], *, file: str, line: int, ranks_a_node: int) -> Run:
    def number(name: str, low: float, high: float) -> float:
        text = row.get(name) or ""
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise InputError(
                f"is {text!r:.40}, not a number from {low:g} to {high:g}", file=file, path=f"line {line}, {name}"
            )
        return value

    ranks = number("tp", 1, 1e6) * number("dp", 1, 1e6)
    layers, hidden = number("layers", 1, 1e5), number("hidden", 1, 1e7)
    gap = number("gap", 0, 1e6) if row.get("gap") else 0.0
    overlapped = number("prefetch", 0, 1) == 1
    share = number("cpu_ratio", LEAST_SHARE, 1)
    # A stride counts only where subgroups are prefetched.
    streamed = share / gap if overlapped and gap else 0.0
    return Run(
        machine=row.get("machine") or "",
        size=row.get("model_B") or "",
        parameters=(12 * layers * hidden**2 + VOCABULARY * hidden) / ranks,
        ranks=int(min(ranks, ranks_a_node)),
        cpu=share - streamed,
        streamed=streamed,
        overlapped=overlapped,
        step_s=number("step_ms", 1e-6, 1e12) / 1e3,
    )
