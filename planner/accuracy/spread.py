"""The spread of errors on rows that no constant had seen, from which intervals are made.

Rows are grouped by quantity, precision class and what is known of their inputs (a case's trust). The half width of a
group's interval is the quantile, at the level of the intervals, of |log(measured / predicted)| over its rows, with
predictions by constants that were fitted without the row's source. Of fewer than 20 rows a quantile at 90 % says
little: such a group has no spread of its own, and takes the widest of its quantity. Where all groups of a quantity are
so small they share one.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from meshwright.catalog.precision import PrecisionClass
from meshwright.catalog.uncertainty_entry import SpreadEntry, UncertaintyEntry
from meshwright.planner.accuracy.case import Case
from meshwright.planner.accuracy.estimate import KNOWLEDGE
from meshwright.planner.accuracy.rows import Row
from meshwright.planner.uncertainty import Knowledge, Quantity

LEVEL = 0.9
FEWEST_ROWS = 20
FEWEST_SOURCES = 2
DIGITS = 3
Group = tuple[Quantity, PrecisionClass, Knowledge]


def knowledge_of(case: Case) -> Knowledge:
    """Give what is known of a case's inputs: its trust; a case of the user's own tells all."""
    return KNOWLEDGE[case.trust]


def group_of(row: Row) -> Group:
    """Give the group of a row."""
    return row.quantity, row.precision_class, knowledge_of(row.case)


def log_error(row: Row) -> float:
    """Give log(predicted / measured), by the constants that didn't see the row's source where there are any."""
    error = row.error if row.left_out_error is None else row.left_out_error
    return math.log1p(error)


def spreads_of(rows: Iterable[Row], *, level: float = LEVEL) -> tuple[SpreadEntry, ...]:
    """Give the spread of each group of rows, in a fixed order."""
    groups: dict[Group, list[Row]] = defaultdict(list)
    quantities: dict[Quantity, list[Row]] = defaultdict(list)
    for row in rows:
        groups[group_of(row)].append(row)
        quantities[row.quantity].append(row)
    large = {group: members for group, members in groups.items() if len(members) >= FEWEST_ROWS}
    alone = {group[0] for group in large}
    shared = {group: quantities[group[0]] for group in groups if group[0] not in alone}
    return tuple(
        _spread(group, members, level=level)
        for group, members in sorted((large | shared).items(), key=lambda item: item[0])
    )


def _spread(group: Group, rows: Sequence[Row], *, level: float) -> SpreadEntry:
    quantity, precision, knowledge = group
    width = float(np.quantile([abs(log_error(row)) for row in rows], level, method="higher"))
    return SpreadEntry(
        quantity=quantity,
        precision=precision,
        inputs=knowledge,
        factor=round(math.exp(width), DIGITS),
        rows=len(rows),
        sources=len({row.file for row in rows}),
    )


def covered_by(rows: Iterable[Row], *, family_of: Callable[[str], str]) -> dict[str, dict[PrecisionClass, int]]:
    """Give the most devices of a measured step, by device family and precision class, both in order.

    Steps of which something that matters is unknown cover nothing.
    """
    largest: dict[tuple[str, PrecisionClass], int] = {}
    for row in rows:
        if row.quantity is Quantity.STEP_TIME and knowledge_of(row.case) is not Knowledge.UNKNOWN:
            key = family_of(row.case.cluster.device), row.precision_class
            largest[key] = max(largest.get(key, 0), row.case.cluster.devices)
    covered: dict[str, dict[PrecisionClass, int]] = {}
    for family, precision in sorted(largest):
        covered.setdefault(family, {})[precision] = largest[family, precision]
    return covered


def coverage_of(rows: Sequence[Row], *, level: float = LEVEL) -> float | None:
    """Give the share of step times within intervals made without their own source, the honest test of intervals.

    Each row is held against the spread of its group over the other sources, and of the quantity where none has rows.
    None where there are fewer than two sources.
    """
    times = [row for row in rows if row.quantity is Quantity.STEP_TIME]
    if len({row.file for row in times}) < FEWEST_SOURCES:
        return None
    held = 0
    for source in sorted({row.file for row in times}):
        others = [row for row in times if row.file != source]
        spreads = {(each.precision, each.inputs): each.factor for each in spreads_of(others, level=level)}
        widest = max(spreads.values())
        held += sum(
            abs(log_error(row)) <= math.log(spreads.get((row.precision_class, knowledge_of(row.case)), widest))
            for row in times
            if row.file == source
        )
    return held / len(times)


def uncertainty_of(
    rows: Sequence[Row], *, unmeasured: float, family_of: Callable[[str], str], source: str
) -> UncertaintyEntry:
    """Give what the catalog holds of uncertainty, from rows and the factor of unmeasured families."""
    return UncertaintyEntry(
        source=source,
        level=LEVEL,
        spreads=spreads_of(rows),
        unmeasured=round(unmeasured, DIGITS),
        covered=covered_by(rows, family_of=family_of),
    )
