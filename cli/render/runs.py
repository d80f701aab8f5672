"""A run of the reference launcher, as JSON and as tables."""

from typing import Any

from rich.console import Console
from rich.text import Text

from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.units import shown_bytes, shown_seconds
from meshwright.planner import Plan
from meshwright.planner.layout.description import describe
from meshwright.planner.ledger.transfers import Kind, Transfer, by_kind
from meshwright.runtime.report import ACTIVATIONS, STATE, Report

SAME, DIFFERENT, NOT_COMPARED = "the same", "different", "not compared"


def run_document(plan: Plan, report: Report) -> dict[str, Any]:
    """Give the JSON form of a run; predicted figures are of the plan's own model on its own devices."""
    workload, predicted = report.workload, plan.predicted
    return {
        "model": workload.model.name,
        "devices": len(report.measured),
        "micro_batches": workload.micro_batches,
        "sequence_length": workload.sequence_length,
        "step_time_s": report.step_time_s,
        "predicted": {
            "model": plan.inputs.model.entry.name,
            "step_time_s": predicted.step_time_s,
            "memory_breakdown": predicted.memory_breakdown_bytes,
        },
        "losses": list(report.losses),
        "losses_in_one_process": None if report.losses_alone is None else list(report.losses_alone),
        "ranks": [_rank(report, rank) for rank in range(len(report.measured))],
        "differences": list(report.differences()),
    }


def render_run(console: Console, plan: Plan, report: Report) -> None:
    """Print a run: losses, step time, and by rank what was held and exchanged beside what was expected."""
    workload, predicted = report.workload, plan.predicted
    console.print(Text(f"{workload.model.name} on {len(report.measured)} processes: {describe(workload.layout)}"))
    console.print(
        Text(
            f"{workload.micro_batches} micro-batches of {workload.layout.micro_batch} x {workload.sequence_length} "
            f"tokens a replica; step {shown_seconds(report.step_time_s)}"
        )
    )
    console.print(
        Text(
            f"the plan predicts of {plan.inputs.model.entry.name} on {plan.inputs.device.entry.name}: "
            f"step {shown_seconds(predicted.step_time_s)}, "
            + ", ".join(
                f"{name.replace('_', ' ')} {shown_bytes(size)}"
                for name, size in predicted.memory_breakdown_bytes.items()
                if size
            )
        )
    )
    _render_losses(console, report)
    _render_state(console, report)
    _render_transfers(console, report)


def _rank(report: Report, rank: int) -> dict[str, Any]:
    expected, measured = report.expected[rank], report.measured[rank]
    return {
        "rank": rank,
        **{
            name: {
                "expected": getattr(expected, name) if name in report.compared else None,
                "measured": getattr(measured, name),
            }
            for name in (*STATE, ACTIVATIONS)
        },
        "collectives": {
            kind: {"expected": _count(expected.transfers, kind), "measured": _count(measured.transfers, kind)}
            for kind in Kind
        },
    }


def _count(transfers: tuple[Transfer, ...], kind: Kind) -> dict[str, int]:
    count, payload_bytes = by_kind(transfers).get(kind, (0, 0))
    return {"count": count, "bytes": payload_bytes}


def _render_losses(console: Console, report: Report) -> None:
    alone = report.losses_alone
    table = plain_table("Loss", ["step"], ["all ranks", *(["one process"] if alone else [])])
    for step, loss in enumerate(report.losses):
        add_row(table, step, f"{loss:.6f}", *([f"{alone[step]:.6f}"] if alone else []))
    console.print(table)


def _render_state(console: Console, report: Report) -> None:
    columns = ["parameters", "gradients", "optimizer", "as expected", "activations", "expected", ""]
    table = plain_table("Bytes of each rank", ["rank"], columns)
    compared = ACTIVATIONS in report.compared
    for expected, measured in zip(report.expected, report.measured, strict=True):
        same = all(getattr(expected, name) == getattr(measured, name) for name in STATE)
        cells = [f"{getattr(measured, name):,}" for name in STATE]
        kept, wanted = measured.activation_bytes, expected.activation_bytes
        verdict = _verdict(same=kept == wanted) if compared else NOT_COMPARED
        activations = (f"{kept:,}", f"{wanted:,}" if compared else "", verdict)
        add_row(table, measured.rank, *cells, _verdict(same=same), *activations)
    console.print(table)


def _render_transfers(console: Console, report: Report) -> None:
    table = plain_table("Collectives of one step", ["rank", "kind"], ["count", "expected", "bytes", "expected", ""])
    for expected, measured in zip(report.expected, report.measured, strict=True):
        wanted, had = by_kind(expected.transfers), by_kind(measured.transfers)
        for kind in Kind:
            if kind in wanted or kind in had:
                found, predicted = had.get(kind, (0, 0)), wanted.get(kind, (0, 0))
                cells = (f"{number:,}" for pair in zip(found, predicted, strict=True) for number in pair)
                add_row(table, measured.rank, kind.replace("_", " "), *cells, _verdict(same=found == predicted))
    console.print(table)


def _verdict(*, same: bool) -> str:
    return SAME if same else DIFFERENT
