"""The spread of errors on rows that no constant had seen, from which intervals are made.

Rows are grouped by quantity, precision class and what is known of their inputs (a case's trust); step times also by
whether the model is a mixture of experts, whose errors are far larger where anything is inferred. The half width of a
group's interval is the quantile, at the level of the intervals, of |log(measured / predicted)| over its rows, with
predictions by constants that were fitted without the row's source. Of fewer than 20 rows a quantile at 90 % says
little: such a group has no spread of its own. It then shares one with other precisions, step times else with whatever
is known of the inputs too; memory else takes the widest of its quantity. Where all groups of a quantity are so small
they share one.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from meshwright.catalog.precision import PrecisionClass
from meshwright.catalog.residuals_entry import ModelKind
from meshwright.catalog.uncertainty_entry import SpreadEntry, UncertaintyEntry
from meshwright.planner.accuracy.case import Case
from meshwright.planner.accuracy.estimate import KNOWLEDGE
from meshwright.planner.accuracy.rows import Row
from meshwright.planner.practices import practices_of
from meshwright.planner.uncertainty import READINGS, Knowledge, Quantity, width_of

LEVEL = 0.9
FEWEST_ROWS = 20
FEWEST_SOURCES = 2
DIGITS = 3
Group = tuple[Quantity, PrecisionClass | None, Knowledge | None, ModelKind | None]
Covered = dict[str, dict[PrecisionClass, int]]


def knowledge_of(case: Case) -> Knowledge:
    """Give what is known of a case's inputs: its trust; a case of the user's own tells all."""
    return KNOWLEDGE[case.trust]


def groups_of(row: Row) -> tuple[Group, ...]:
    """Give the groups that a row counts in, from the one that says the most of it; None is any."""
    quantity, precision, knowledge = row.quantity, row.precision_class, knowledge_of(row.case)
    if quantity is not Quantity.STEP_TIME:
        return (quantity, precision, knowledge, None), (quantity, None, knowledge, None)
    kind = kind_of(row.case)
    return (quantity, precision, knowledge, kind), (quantity, None, knowledge, kind), (quantity, None, None, kind)


def kind_of(case: Case) -> ModelKind:
    """Give the kind of a case's model."""
    return ModelKind.DENSE if case.model.moe is None else ModelKind.MIXTURE


def log_error(row: Row) -> float:
    """Give log(predicted / measured), by the constants that didn't see the row's source where there are any."""
    error = row.error if row.left_out_error is None else row.left_out_error
    return math.log1p(error)


def spreads_of(rows: Iterable[Row], *, level: float = LEVEL) -> tuple[SpreadEntry, ...]:
    """Give the spread of each group of rows, in a fixed order."""
    groups: dict[Group, list[Row]] = defaultdict(list)
    quantities: dict[Quantity, list[Row]] = defaultdict(list)
    for row in rows:
        quantities[row.quantity].append(row)
        for group in groups_of(row):
            groups[group].append(row)
    large = {group: members for group, members in groups.items() if len(members) >= FEWEST_ROWS}
    alone = {group[0] for group in large}
    shared: dict[Group, list[Row]] = {
        (quantity, None, None, None): members for quantity, members in quantities.items() if quantity not in alone
    }
    return tuple(
        _spread(group, members, level=level)
        for group, members in sorted((large | shared).items(), key=lambda item: tuple(map(str, item[0])))
    )


def _spread(group: Group, rows: Sequence[Row], *, level: float) -> SpreadEntry:
    quantity, precision, knowledge, model = group
    width = float(np.quantile([abs(log_error(row)) for row in rows], level, method="higher"))
    return SpreadEntry(
        quantity=quantity,
        precision=precision,
        inputs=knowledge,
        model=model,
        factor=round(math.exp(width), DIGITS),
        rows=len(rows),
        sources=len({row.file for row in rows}),
    )


def covered_by(rows: Iterable[Row], quantity: Quantity, *, family_of: Callable[[str], str]) -> Covered:
    """Give the most devices that a quantity was measured on, by device family and precision class, both in order.

    Rows of which something that matters is unknown cover nothing.
    """
    largest: dict[tuple[str, PrecisionClass], int] = {}
    for row in rows:
        if row.quantity is quantity and knowledge_of(row.case) is not Knowledge.UNKNOWN:
            key = family_of(row.case.cluster.device), row.precision_class
            largest[key] = max(largest.get(key, 0), row.case.cluster.devices)
    covered: Covered = {}
    for family, precision in sorted(largest):
        covered.setdefault(family, {})[precision] = largest[family, precision]
    return covered


def practised_by(rows: Iterable[Row], *, family_of: Callable[[str], str]) -> dict[str, tuple[str, ...]]:
    """Give the practices of measured layouts by device family, in order; of steps as in covered_by."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.quantity is Quantity.STEP_TIME and knowledge_of(row.case) is not Knowledge.UNKNOWN:
            found[family_of(row.case.cluster.device)].update(practices_of(row.prediction.layout))
    return {family: tuple(sorted(found[family])) for family in sorted(found)}


def coverage_of(rows: Sequence[Row], *, level: float = LEVEL) -> float | None:
    """Give the share of step times within intervals made without their own source, the honest test of intervals.

    Each row is held against the interval that the spreads over the other sources would have given it. None where there
    are fewer than two sources.
    """
    times = [row for row in rows if row.quantity is Quantity.STEP_TIME]
    if len({row.file for row in times}) < FEWEST_SOURCES:
        return None
    held = 0
    for source in sorted({row.file for row in times}):
        others = [row for row in times if row.file != source]
        spreads = spreads_of(others, level=level)
        held += sum(is_within(row, spreads) for row in times if row.file == source)
    return held / len(times)


def is_within(row: Row, spreads: Sequence[SpreadEntry]) -> bool:
    """Tell whether what was measured is within the interval that spreads give its prediction."""
    width = width_of(
        row.quantity,
        precision=row.precision_class,
        knowledge=knowledge_of(row.case),
        model=kind_of(row.case),
        spreads=spreads,
    )
    return abs(log_error(row)) <= width


def uncertainty_of(
    rows: Sequence[Row], *, unmeasured: float, family_of: Callable[[str], str], source: str
) -> UncertaintyEntry:
    """Give what the catalog holds of uncertainty, from rows and the factor of unmeasured families."""
    return UncertaintyEntry(
        source=source,
        level=LEVEL,
        spreads=spreads_of(rows),
        unmeasured=round(unmeasured, DIGITS),
        covered=covered_by(rows, Quantity.STEP_TIME, family_of=family_of),
        read={reading.value: covered_by(rows, reading, family_of=family_of) for reading in READINGS},
        practised=practised_by(rows, family_of=family_of),
    )
