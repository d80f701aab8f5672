"""The rows that are furthest off, by the bar that they keep from being met."""

from collections.abc import Iterable, Mapping, Sequence

from meshwright.planner.accuracy.bars import Bar
from meshwright.planner.accuracy.rows import Row


def worst_rows(bars: Iterable[Bar], rows: Sequence[Row], count: int) -> Mapping[str, tuple[Row, ...]]:
    """Give the `count` rows of the largest error of each bar of rows that isn't met; of all where each such bar is."""
    missed = {bar.name: bar.rows for bar in bars if bar.rows and not bar.holds}
    return {name: _worst(chosen, count) for name, chosen in (missed or {"all rows": tuple(rows)}).items()}


def _worst(rows: Sequence[Row], count: int) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda row: -abs(row.error))[:count])
