"""The bars that predictions of `catalog/measurements` are held to, and how far they are from each.

A source is a file. Every mean of errors is taken a source first, then over sources, so that a source of 245 rows weighs
as much as one of nine. A share (of rows within a tenth, of pairs in order) is held to its bar over all and, as
"the same by source", a source first. Errors are relative; an underestimate is a negative one.

    bar                   rows that count
    time 16-bit, high     step times in bf16 and fp16 of high trust; "medium" of medium trust
    time fp8, narrower    step times in narrower formats, of any trust
    time on Ascend        step times on Ascend devices, in any format and of any trust
    allocated > 1 GiB     peaks as the framework counts them, of high and medium trust, of models whose parameters, all
                          together and in 16 bits, take more than 1 GiB: less is lost in what libraries take themselves
    reserved, nvidia_smi  peaks as the allocator and the driver count them, of any trust
    out of memory         cases that ran out of memory
    ranking               groups of `ranking` in RANKED, whose sources vary the layout of one job
    time, left out        rows of "time 16-bit, high" that have a left-out prediction: its error over the fitted one
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import fmean

from meshwright.catalog.names import canonical_name
from meshwright.catalog.precision import PrecisionClass
from meshwright.costmodels.parameters import total_parameters
from meshwright.planner.accuracy.case import Case, Trust
from meshwright.planner.accuracy.case_model import transformer_of_case
from meshwright.planner.accuracy.ranking import NEAR, Ranking
from meshwright.planner.accuracy.rows import Row
from meshwright.planner.accuracy.verdict import MemoryVerdict
from meshwright.planner.uncertainty import Quantity

RANKED = frozenset({"bigscience_bloom", "vtrain_multi", "simumax", "zero_bubble", "megatron_moe_zoo"})
LARGE_MODEL_BYTES = 2**30
HALF_BYTES = 2


class Measure(StrEnum):
    """What of the rows is held to a bar."""

    MEAN_ERROR = "mean |error|"
    WORST_SOURCE = "worst source"
    WITHIN_TENTH = "rows within 10 %"
    UNDERESTIMATE = "worst underestimate"
    FORETOLD = "foretold"
    MEAN_OVER_BEST = "picked over best"
    WORST_OVER_BEST = "the same at worst"
    PAIRS_IN_ORDER = "pairs in order"
    BY_SOURCE = "the same by source"
    OVER_FITTED = "over fitted"


AT_LEAST = frozenset(
    {
        Measure.WITHIN_TENTH,
        Measure.UNDERESTIMATE,
        Measure.FORETOLD,
        Measure.PAIRS_IN_ORDER,
        Measure.BY_SOURCE,
    }
)
RATIOS = frozenset({Measure.MEAN_OVER_BEST, Measure.WORST_OVER_BEST, Measure.OVER_FITTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One figure and what it is held to.

    name: which rows count.
    value, limit: fractions (0.05 is 5 %), or ratios where the measure is in RATIOS.
    count: how many rows, cases, groups or pairs the value is of.
    rows: the rows that count; of a ranking those of costly picks; none where it is cases or pairs that count.
    """

    name: str
    measure: Measure
    limit: float
    value: float
    count: int
    rows: tuple[Row, ...] = ()

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return f"{self.name}: {self.measure}"

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side of the limit, or on it."""
        return self.value >= self.limit if self.measure in AT_LEAST else self.value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class _Selection:
    name: str
    chosen: Callable[[Row], bool]
    limits: Mapping[Measure, float]


def bars_of(
    rows: Sequence[Row], *, out_of_memory: Sequence[MemoryVerdict], rankings: Sequence[Ranking]
) -> tuple[Bar, ...]:
    """Hold predictions to the bars. A bar that nothing counts for is left out."""
    ranked = [ranking for ranking in rankings if source_name(ranking.file) in RANKED]
    return (*_row_bars(rows), *_memory_bars(out_of_memory), *_ranking_bars(ranked), *_left_out_bars(rows))


def source_name(file: str) -> str:
    """Give the name of the source whose file it is: the file's, without folder and ending."""
    return Path(file).stem


def _is_half_time(row: Row, trust: Trust) -> bool:
    half = row.precision_class is PrecisionClass.HALF
    return row.quantity is Quantity.STEP_TIME and half and row.case.trust is trust


def _is_narrow_time(row: Row) -> bool:
    return row.quantity is Quantity.STEP_TIME and row.precision_class is PrecisionClass.NARROW


def _is_ascend_time(row: Row) -> bool:
    return row.quantity is Quantity.STEP_TIME and canonical_name(row.case.cluster.device).startswith("ascend")


def _is_large_allocation(row: Row) -> bool:
    trusted = row.case.trust in {Trust.HIGH, Trust.MEDIUM}
    return row.quantity is Quantity.ALLOCATED and trusted and parameter_bytes(row.case) > LARGE_MODEL_BYTES


def parameter_bytes(case: Case) -> int:
    """Give the bytes of all parameters of a case's model in 16 bits."""
    model, _ = transformer_of_case(case.model)
    return HALF_BYTES * total_parameters(model)


SELECTIONS = (
    _Selection(
        name="time 16-bit, high",
        chosen=lambda row: _is_half_time(row, Trust.HIGH),
        limits={
            Measure.MEAN_ERROR: 0.05,
            Measure.WORST_SOURCE: 0.09,
            Measure.WITHIN_TENTH: 0.85,
            Measure.BY_SOURCE: 0.85,
        },
    ),
    _Selection(
        name="time 16-bit, medium",
        chosen=lambda row: _is_half_time(row, Trust.MEDIUM),
        limits={Measure.MEAN_ERROR: 0.08},
    ),
    _Selection(name="time fp8, narrower", chosen=_is_narrow_time, limits={Measure.MEAN_ERROR: 0.10}),
    _Selection(name="time on Ascend", chosen=_is_ascend_time, limits={Measure.MEAN_ERROR: 0.12}),
    _Selection(
        name="allocated > 1 GiB",
        chosen=_is_large_allocation,
        limits={Measure.MEAN_ERROR: 0.04, Measure.UNDERESTIMATE: -0.08},
    ),
    _Selection(
        name="reserved",
        chosen=lambda row: row.quantity is Quantity.RESERVED,
        limits={Measure.MEAN_ERROR: 0.08},
    ),
    _Selection(
        name="nvidia_smi",
        chosen=lambda row: row.quantity is Quantity.NVIDIA_SMI,
        limits={Measure.MEAN_ERROR: 0.08},
    ),
)


def _row_bars(rows: Sequence[Row]) -> Iterator[Bar]:
    for selection in SELECTIONS:
        chosen = tuple(row for row in rows if selection.chosen(row))
        for measure, limit in selection.limits.items():
            if chosen:
                value = _MEASURES[measure](chosen)
                yield Bar(
                    name=selection.name, measure=measure, limit=limit, value=value, count=len(chosen), rows=chosen
                )


def _by_source(rows: Iterable[Row], number: Callable[[Row], float]) -> list[float]:
    """Give the mean of a number of the rows in each source."""
    sources: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        sources[row.file].append(number(row))
    return [fmean(numbers) for numbers in sources.values()]


def _source_errors(rows: Iterable[Row]) -> list[float]:
    return _by_source(rows, lambda row: abs(row.error))


def _is_within_tenth(row: Row) -> bool:
    return abs(row.error) <= 0.1


_MEASURES: Mapping[Measure, Callable[[Sequence[Row]], float]] = {
    Measure.MEAN_ERROR: lambda rows: fmean(_source_errors(rows)),
    Measure.WORST_SOURCE: lambda rows: max(_source_errors(rows)),
    Measure.WITHIN_TENTH: lambda rows: fmean(map(_is_within_tenth, rows)),
    Measure.BY_SOURCE: lambda rows: fmean(_by_source(rows, _is_within_tenth)),
    Measure.UNDERESTIMATE: lambda rows: min(row.error for row in rows),
}


def _memory_bars(out_of_memory: Sequence[MemoryVerdict]) -> Iterator[Bar]:
    if out_of_memory:
        share = fmean(verdict.foretold_out_of_memory for verdict in out_of_memory)
        yield Bar(name="out of memory", measure=Measure.FORETOLD, limit=1.0, value=share, count=len(out_of_memory))


def _ranking_bars(rankings: Sequence[Ranking]) -> Iterator[Bar]:
    if not rankings:
        return
    groups = sum(len(ranking.groups) for ranking in rankings)
    mean = fmean(ranking.mean_over_best for ranking in rankings)
    worst = max(ranking.worst_over_best for ranking in rankings)
    costly = tuple(_costly_rows(rankings))
    yield Bar(name="ranking", measure=Measure.MEAN_OVER_BEST, limit=1.01, value=mean, count=groups, rows=costly)
    yield Bar(name="ranking", measure=Measure.WORST_OVER_BEST, limit=1.05, value=worst, count=groups, rows=costly)
    with_pairs = [ranking for ranking in rankings if ranking.pairs]
    if with_pairs:
        pairs = sum(ranking.pairs for ranking in with_pairs)
        shares = {
            Measure.PAIRS_IN_ORDER: sum(ranking.ordered for ranking in with_pairs) / pairs,
            Measure.BY_SOURCE: fmean(ranking.ordered / ranking.pairs for ranking in with_pairs),
        }
        for measure, share in shares.items():
            yield Bar(name="ranking", measure=measure, limit=0.90, value=share, count=pairs)


def _costly_rows(rankings: Iterable[Ranking]) -> Iterator[Row]:
    """Give the rows of the layouts that are picked, and of those that were the best, where they are apart."""
    for group in (group for ranking in rankings for group in ranking.groups if group.over_best > NEAR):
        yield from (*group.picked.repeats, *group.best.repeats)


def _left_out_bars(rows: Sequence[Row]) -> Iterator[Bar]:
    """Give how much larger the error is of predictions by constants fitted without the row's source."""
    chosen = tuple(row for row in rows if _is_half_time(row, Trust.HIGH) and row.left_out_error is not None)
    fitted = fmean(_source_errors(chosen)) if chosen else 0.0
    if fitted:
        left_out = fmean(_by_source(chosen, lambda row: abs(row.left_out_error or 0.0)))
        yield Bar(
            name="time, left out",
            measure=Measure.OVER_FITTED,
            limit=1.5,
            value=left_out / fitted,
            count=len(chosen),
            rows=chosen,
        )
