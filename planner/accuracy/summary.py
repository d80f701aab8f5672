"""Statistics of relative errors, by what the rows have in common."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from meshwright.planner.accuracy.rows import Row
from meshwright.planner.uncertainty import Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Of relative errors: their mean and median without sign, their mean with sign, and the share within a tenth."""

    count: int
    mean_absolute: float
    median_absolute: float
    bias: float
    within_tenth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The rows of one quantity that share `value` in `dimension`, a key of DIMENSIONS.

    left_out: mean error without sign of left-out predictions, None where the rows have none.
    """

    dimension: str
    value: str
    quantity: Quantity
    statistics: Statistics
    left_out: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The two averages of one quantity: over rows, and over files, where long files count no more than short ones."""

    selection: str
    quantity: Quantity
    count: int
    files: int
    mean_over_rows: float
    mean_over_files: float


DIMENSIONS: Mapping[str, Callable[[Row], str]] = {
    "file": lambda row: row.file,
    "device": lambda row: row.case.cluster.device,
    "trust": lambda row: row.trust,
    "precision": lambda row: row.precision_class,
    "quantity": lambda row: row.quantity,
}

SELECTIONS: Mapping[str, Callable[[Row], bool]] = {
    "all": lambda _: True,
    "high trust, 16-bit": lambda row: row.trust == "high" and row.precision_class == "16-bit",
    "high trust, narrower": lambda row: row.trust == "high" and row.precision_class == "narrower",
}


def statistics_of(errors: Sequence[float]) -> Statistics:
    """Summarise at least one relative error."""
    sizes = [abs(error) for error in errors]
    return Statistics(
        count=len(errors),
        mean_absolute=fmean(sizes),
        median_absolute=median(sizes),
        bias=fmean(errors),
        within_tenth=sum(size <= 0.1 for size in sizes) / len(sizes),
    )


def summaries_of(rows: Sequence[Row]) -> tuple[Summary, ...]:
    """Summarise rows by each dimension and quantity, values in order."""
    groups: dict[tuple[str, str, Quantity], list[Row]] = defaultdict(list)
    for dimension, value_of in DIMENSIONS.items():
        for row in rows:
            groups[dimension, value_of(row), row.quantity].append(row)
    order = {quantity: index for index, quantity in enumerate(Quantity)}
    dimensions = list(DIMENSIONS)
    keys = sorted(groups, key=lambda key: (dimensions.index(key[0]), order[key[2]], key[1]))
    return tuple(_summary(*key, groups[key]) for key in keys)


def _summary(dimension: str, value: str, quantity: Quantity, rows: Sequence[Row]) -> Summary:
    left_out = [abs(row.left_out_error) for row in rows if row.left_out_error is not None]
    return Summary(
        dimension=dimension,
        value=value,
        quantity=quantity,
        statistics=statistics_of([row.error for row in rows]),
        left_out=fmean(left_out) if left_out else None,
    )


def headlines_of(rows: Iterable[Row]) -> tuple[Headline, ...]:
    """Give the averages of each selection and quantity that has rows."""
    groups: dict[tuple[str, Quantity], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for selection, chosen in SELECTIONS.items():
            if chosen(row):
                groups[selection, row.quantity][row.file].append(abs(row.error))
    return tuple(
        _headline(selection, quantity, list(groups[selection, quantity].values()))
        for selection in SELECTIONS
        for quantity in Quantity
        if (selection, quantity) in groups
    )


def _headline(selection: str, quantity: Quantity, by_file: Sequence[Sequence[float]]) -> Headline:
    return Headline(
        selection=selection,
        quantity=quantity,
        count=sum(map(len, by_file)),
        files=len(by_file),
        mean_over_rows=fmean(error for errors in by_file for error in errors),
        mean_over_files=fmean(fmean(errors) for errors in by_file),
    )
