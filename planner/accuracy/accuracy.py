"""How far predictions are from measurements: bars, rows, rankings, what ran out of memory, what wasn't predicted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshwright.planner.accuracy.bars import Bar, bars_of
from meshwright.planner.accuracy.estimate import Estimate
from meshwright.planner.accuracy.ranking import Ranking, rankings_of
from meshwright.planner.accuracy.rows import Row, rows_of
from meshwright.planner.accuracy.spread import coverage_of
from meshwright.planner.accuracy.summary import Headline, Summary, headlines_of, summaries_of
from meshwright.planner.accuracy.verdict import MemoryVerdict, verdicts_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """All that is known of how far to trust the cost model.

    bars: what predictions are held to, and how far they are from it.
    rows: each measured quantity beside its prediction.
    rankings: of each source that varies the layout of a job, whether its layouts are in the right order.
    interval_coverage: share of step times within intervals made without their own source, None for a single source.
    out_of_memory: the verdicts on cases that ran out of memory, right or wrong.
    wrongly_refused: the verdicts on cases that ran although they were foretold not to fit.
    unpredicted: the measured cases without a prediction; their estimates say why.
    unmeasured: how many cases have no measurement to compare with.
    repeated: the estimates of cases that had been given before, which don't count again.
    """

    cases: int
    bars: tuple[Bar, ...]
    rows: tuple[Row, ...]
    rankings: tuple[Ranking, ...]
    headlines: tuple[Headline, ...]
    summaries: tuple[Summary, ...]
    interval_coverage: float | None
    out_of_memory: tuple[MemoryVerdict, ...]
    wrongly_refused: tuple[MemoryVerdict, ...]
    unpredicted: tuple[Estimate, ...]
    unmeasured: int
    repeated: tuple[Estimate, ...]


def accuracy(estimates: Sequence[Estimate], *, left_out: Sequence[Estimate | None] | None = None) -> Accuracy:
    """Compare estimates with what their cases say was measured. None is dropped, but a case given twice counts once.

    Args:
        estimates: the predictions.
        left_out: of the same cases in the same order, predictions by constants that were fitted without the case's
            source; None for a case that has none.

    Raises ValueError where there aren't as many of both.

    """
    without = [None] * len(estimates) if left_out is None else left_out
    pairs, repeated = _once_each(zip(estimates, without, strict=True))
    estimates = [item for item, _ in pairs]
    rows = tuple(rows_of(pairs))
    rankings = rankings_of(rows)
    verdicts = tuple(verdicts_of(estimates))
    out_of_memory = tuple(verdict for verdict in verdicts if verdict.was_out_of_memory)
    measured = [estimate for estimate in estimates if estimate.case.measured is not None]
    return Accuracy(
        cases=len(estimates),
        bars=bars_of(rows, out_of_memory=out_of_memory, rankings=rankings),
        rows=rows,
        rankings=rankings,
        headlines=headlines_of(rows),
        summaries=summaries_of(rows),
        interval_coverage=coverage_of(rows),
        out_of_memory=out_of_memory,
        wrongly_refused=tuple(
            verdict for verdict in verdicts if verdict.foretold_out_of_memory and not verdict.was_out_of_memory
        ),
        unpredicted=tuple(estimate for estimate in measured if estimate.predicted is None),
        unmeasured=len(estimates) - len(measured),
        repeated=tuple(repeated),
    )


def _once_each(
    pairs: Iterable[tuple[Estimate, Estimate | None]],
) -> tuple[list[tuple[Estimate, Estimate | None]], list[Estimate]]:
    """Part the first estimate of each case, with its left-out one, from those of cases that had been given before."""
    first: dict[str, tuple[Estimate, Estimate | None]] = {}
    repeated: list[Estimate] = []
    for item, left_out in pairs:
        if item.case.fingerprint in first:
            repeated.append(item)
        else:
            first[item.case.fingerprint] = item, left_out
    return list(first.values()), repeated
