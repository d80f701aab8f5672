"""Predictions beside measurements, as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from meshwright.planner.accuracy import Accuracy
from meshwright.planner.accuracy.bars import AT_LEAST, RANKED, Bar, source_name
from meshwright.planner.accuracy.ranking import Candidate, Group, Ranking
from meshwright.planner.accuracy.rows import Row
from meshwright.planner.accuracy.summary import DIMENSIONS, Headline, Summary
from meshwright.planner.accuracy.verdict import MemoryVerdict
from meshwright.planner.uncertainty import Quantity


def accuracy_document(result: Accuracy, worst: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Give the JSON form; errors and shares are fractions: 0.1 is a tenth too high.

    Args:
        result: all of it.
        worst: rows to tell everything of, by the bar that they keep from being met.

    """
    return {
        "cases": result.cases,
        "unmeasured": result.unmeasured,
        "repeated": [item.place for item in result.repeated],
        "interval_coverage": result.interval_coverage,
        "bars": [_bar(bar) for bar in result.bars],
        "rankings": [_ranking(ranking) for ranking in result.rankings],
        "headlines": [_headline(headline) for headline in result.headlines],
        "summaries": {
            dimension: [_summary(summary) for summary in result.summaries if summary.dimension == dimension]
            for dimension in DIMENSIONS
        },
        "out_of_memory": [_verdict(verdict) for verdict in result.out_of_memory],
        "wrongly_refused": [_verdict(verdict) for verdict in result.wrongly_refused],
        "unpredicted": [{"id": item.case.id, "file": item.file, "error": item.error} for item in result.unpredicted],
        "worst": {name: [_detailed(row) for row in rows] for name, rows in worst.items()},
        "rows": [_row(row) for row in result.rows],
    }


def _bar(bar: Bar) -> dict[str, Any]:
    return {
        "name": bar.name,
        "measure": bar.measure,
        "count": bar.count,
        "value": bar.value,
        "relation": ">=" if bar.measure in AT_LEAST else "<=",
        "limit": bar.limit,
        "met": bar.holds,
    }


def _ranking(ranking: Ranking) -> dict[str, Any]:
    return {
        "file": ranking.file,
        "in_bar": source_name(ranking.file) in RANKED,
        "mean_over_best": ranking.mean_over_best,
        "worst_over_best": ranking.worst_over_best,
        "pairs": ranking.pairs,
        "pairs_in_order": ranking.ordered,
        "groups": [_group(group) for group in ranking.groups],
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "over_best": group.over_best,
        "pairs": group.pairs,
        "pairs_in_order": group.ordered,
        "picked": group.picked.name,
        "best": group.best.name,
        "layouts": [_candidate(candidate) for candidate in group.candidates],
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "ids": [row.case.id for row in candidate.repeats],
        "measured_s": candidate.measured_s,
        "predicted_s": candidate.predicted_s,
    }


def _headline(headline: Headline) -> dict[str, Any]:
    return {
        "selection": headline.selection,
        "quantity": headline.quantity,
        "count": headline.count,
        "files": headline.files,
        "mean_over_rows": headline.mean_over_rows,
        "mean_over_files": headline.mean_over_files,
    }


def _summary(summary: Summary) -> dict[str, Any]:
    return {
        "value": summary.value,
        "quantity": summary.quantity,
        "count": summary.statistics.count,
        "mean_absolute_error": summary.statistics.mean_absolute,
        "median_absolute_error": summary.statistics.median_absolute,
        "bias": summary.statistics.bias,
        "within_10_percent": summary.statistics.within_tenth,
        "left_out_mean_absolute_error": summary.left_out,
    }


def _verdict(verdict: MemoryVerdict) -> dict[str, Any]:
    return {
        "id": verdict.case.id,
        "file": verdict.file,
        "foretold_out_of_memory": verdict.foretold_out_of_memory,
        "was_out_of_memory": verdict.was_out_of_memory,
        "predicted_bytes": verdict.predicted_bytes,
        "limit_bytes": verdict.limit_bytes,
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "id": row.case.id,
        "file": row.file,
        "device": row.case.cluster.device,
        "trust": row.trust,
        "precision": row.case.precision,
        "quantity": row.quantity,
        "measured": row.measured,
        "predicted": row.predicted,
        "error": row.error,
        "left_out_error": row.left_out_error,
    }


def _detailed(row: Row) -> dict[str, Any]:
    timed = row.quantity is Quantity.STEP_TIME
    return _row(row) | {
        "breakdown": dict(row.prediction.breakdown if timed else row.prediction.memory_breakdown),
        "assumptions": list(row.prediction.assumptions),
        "unknown": list(row.case.unknown),
        "inferred": list(row.case.inferred),
        "note": row.case.note,
    }
