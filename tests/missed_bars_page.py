"""Writes docs/missed-bars.md: each bar that isn't met, and every row that is far off, with the reason.

Rows come from `accuracy`, reasons from docs/missed-bars.yaml, which names rows by their ids.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field

from meshwright.catalog.entry import Entry
from meshwright.cli.render.units import shown_bytes, shown_error, shown_seconds
from meshwright.planner.accuracy import Accuracy
from meshwright.planner.accuracy.bars import RANKED, RATIOS, Bar, source_name
from meshwright.planner.accuracy.ranking import Group
from meshwright.planner.accuracy.rows import Row
from meshwright.planner.accuracy.verdict import MemoryVerdict
from meshwright.planner.uncertainty import Quantity

FAR_OFF = 0.1
WORTH_SHOWING = 0.05
NO_REASON = "no reason was found"
HEADER = """\
# Bars that aren't met, and why

<!-- Written by `make refresh` from `meshwright accuracy` and missed-bars.yaml; change that. -->

`meshwright accuracy` prints the bars, and `--worst N` the rows behind each that isn't met, with where their time or
memory goes. No row was dropped, marked anew or set apart. Of each bar: every row that is off by more than 10 %, then
every other that is off by more than 5 % (or than the bar, where that is less), and why, where a reason was found.
"""


class Reason(Entry):
    """Why some rows are far off."""

    of: Literal["time", "memory"]
    rows: tuple[str, ...] = Field(min_length=1)
    reason: str = Field(min_length=10)


class Reasons(Entry):
    """All that is known: of bars by name, and of rows."""

    bars: dict[str, str]
    reasons: tuple[Reason, ...]

    def of(self, what: str, name: str) -> str:
        """Give the reason of a row by its id, and that none was found where none was."""
        return next((each.reason for each in self.reasons if each.of == what and _names(each, name)), NO_REASON)


def _names(reason: Reason, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in reason.rows)


def missed_bars_page(result: Accuracy, reasons: Reasons) -> str:
    """Give the text of the page."""
    missed = [bar for bar in result.bars if not bar.holds]
    sections = (_section(name, missed, result, reasons) for name in dict.fromkeys(bar.name for bar in missed))
    return HEADER + "".join(f"\n{line}\n" if line else "\n" for section in sections for line in section)


def _section(name: str, missed: Iterable[Bar], result: Accuracy, reasons: Reasons) -> Iterator[str]:
    bars = [bar for bar in missed if bar.name == name]
    yield f"## {name[0].upper()}{name[1:]}"
    yield " ".join(_told(bar) for bar in bars) + (f" {reasons.bars[name]}" if name in reasons.bars else "")
    if name == "out of memory":
        yield _verdict_table([each for each in result.out_of_memory if not each.foretold_out_of_memory], reasons)
    elif name == "ranking":
        groups = [group for each in result.rankings if source_name(each.file) in RANKED for group in each.groups]
        yield _group_table([group for group in groups if group.over_best > 1 + WORTH_SHOWING], reasons)
    else:
        least = min(WORTH_SHOWING, bars[0].limit)
        off = sorted(bars[0].rows, key=lambda row: (-abs(row.error), row.case.id))
        near = [row for row in off if least < abs(row.error) <= FAR_OFF]
        yield _row_table([row for row in off if abs(row.error) > FAR_OFF], reasons)
        if near:
            rows = "row is" if len(near) == 1 else "rows are"
            yield f"{len(near)} more {rows} off by {least * 100:.0f} to {FAR_OFF * 100:.0f} %:"
            yield _near_table(near, reasons)


def _told(bar: Bar) -> str:
    counted = {"ranking": "jobs", "out of memory": "cases"}.get(bar.name, "rows")
    value, limit = (
        f"{number:.3f}" if bar.measure in RATIOS else f"{number * 100:.1f} %" for number in (bar.value, bar.limit)
    )
    return f"**{bar.measure[0].upper()}{bar.measure[1:]}** ({bar.count} {counted}): {value}, held to {limit}."


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def _row_table(rows: Iterable[Row], reasons: Reasons) -> str:
    head = ("row", "source, trust", "measured", "predicted", "error", "not told", "reason")
    return _table(head, (_row_line(row, reasons) for row in rows))


def _near_table(rows: Iterable[Row], reasons: Reasons) -> str:
    """Give a line for the rows of a source that share a reason."""
    alike: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        alike[source_name(row.file), _reason(row, reasons)].append(row)
    lines = (
        (source, reason, str(len(alike[source, reason])), ", ".join(map(_named, alike[source, reason])))
        for source, reason in sorted(alike)
    )
    return _table(("source", "reason", "rows", "row and error"), lines)


def _named(row: Row) -> str:
    return f"`{row.case.id}` {shown_error(row.error)}"


def _reason(row: Row, reasons: Reasons) -> str:
    return reasons.of("time" if row.quantity is Quantity.STEP_TIME else "memory", row.case.id)


def _row_line(row: Row, reasons: Reasons) -> tuple[str, ...]:
    timed = row.quantity is Quantity.STEP_TIME
    shown = shown_seconds if timed else shown_bytes
    return (
        f"`{row.case.id}`",
        f"{source_name(row.file)}, {row.trust}",
        shown(row.measured),
        shown(row.predicted),
        shown_error(row.error),
        ", ".join(row.case.unknown),
        _reason(row, reasons),
    )


def _verdict_table(verdicts: Iterable[MemoryVerdict], reasons: Reasons) -> str:
    head = ("row", "source, trust", "predicted", "of", "reason")
    return _table(
        head,
        (
            (
                f"`{each.case.id}`",
                f"{source_name(each.file)}, {each.case.trust}",
                shown_bytes(each.predicted_bytes),
                shown_bytes(each.limit_bytes),
                reasons.of("memory", each.case.id),
            )
            for each in verdicts
        ),
    )


def _group_table(groups: Iterable[Group], reasons: Reasons) -> str:
    head = ("picked", "best", "source", "measured", "predicted", "over best", "reason")
    return _table(
        head,
        (
            (
                f"`{group.picked.name}`",
                f"`{group.best.name}`",
                source_name(group.file),
                f"{shown_seconds(group.picked.measured_s)}, {shown_seconds(group.best.measured_s)}",
                f"{shown_seconds(group.picked.predicted_s)}, {shown_seconds(group.best.predicted_s)}",
                f"{group.over_best:.3f}",
                reasons.of("time", group.picked.name),
            )
            for group in sorted(groups, key=lambda group: -group.over_best)
        ),
    )
