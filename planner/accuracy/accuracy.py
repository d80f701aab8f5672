"""How far predictions are from measurements: rows, summaries, what ran out of memory, what couldn't be predicted."""

from collections.abc import Sequence
from dataclasses import dataclass

from meshwright.planner.accuracy.case import MemoryKind
from meshwright.planner.accuracy.estimate import Estimate
from meshwright.planner.accuracy.rows import Row, rows_of
from meshwright.planner.accuracy.summary import Headline, Summary, headlines_of, summaries_of


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryVerdict:
    """Whether a case was foretold to fit, and whether it did."""

    estimate: Estimate
    foretold_out_of_memory: bool
    was_out_of_memory: bool
    predicted_bytes: int
    limit_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """All that is known of how far to trust the cost model.

    rows: each measured quantity beside its prediction.
    out_of_memory: the verdicts on cases that ran out of memory, right or wrong.
    wrongly_refused: the verdicts on cases that ran although they were foretold not to fit.
    unpredicted: the measured cases without a prediction; their estimates say why.
    unmeasured: how many cases have no measurement to compare with.
    """

    cases: int
    rows: tuple[Row, ...]
    headlines: tuple[Headline, ...]
    summaries: tuple[Summary, ...]
    out_of_memory: tuple[MemoryVerdict, ...]
    wrongly_refused: tuple[MemoryVerdict, ...]
    unpredicted: tuple[Estimate, ...]
    unmeasured: int


def accuracy(estimates: Sequence[Estimate]) -> Accuracy:
    """Compare estimates with what their cases say was measured. None is dropped."""
    measured = [estimate for estimate in estimates if estimate.case.measured is not None]
    rows = tuple(rows_of(measured))
    verdicts = [verdict for estimate in measured for verdict in _verdict(estimate)]
    return Accuracy(
        cases=len(estimates),
        rows=rows,
        headlines=headlines_of(rows),
        summaries=summaries_of(rows),
        out_of_memory=tuple(verdict for verdict in verdicts if verdict.was_out_of_memory),
        wrongly_refused=tuple(
            verdict for verdict in verdicts if verdict.foretold_out_of_memory and not verdict.was_out_of_memory
        ),
        unpredicted=tuple(estimate for estimate in measured if estimate.predicted is None),
        unmeasured=len(estimates) - len(measured),
    )


def _verdict(estimate: Estimate) -> tuple[MemoryVerdict, ...]:
    predicted, measured = estimate.predicted, estimate.case.measured
    if predicted is None or measured is None:
        return ()
    return (
        MemoryVerdict(
            estimate=estimate,
            foretold_out_of_memory=not predicted.fits,
            was_out_of_memory=measured.out_of_memory,
            predicted_bytes=predicted.peak_memory_bytes[MemoryKind.NVIDIA_SMI],
            limit_bytes=predicted.memory_limit_bytes,
        ),
    )
