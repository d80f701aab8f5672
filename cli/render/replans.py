"""What a change of a cluster comes to, as JSON and as tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from meshwright.cli.render.reshards import reshard_document
from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.text import printable
from meshwright.cli.render.units import shown_error, shown_seconds, shown_share, shown_volume
from meshwright.planner import Plan
from meshwright.planner.change import Candidate, Replanned
from meshwright.planner.figures import significant
from meshwright.planner.layout.description import describe


def replan_document(old: Plan, found: Replanned) -> dict[str, Any]:
    """Give the JSON form of a change: both plans in short, the step, the bound, what moves, who sits where."""
    new, before = found.chosen.plan, old.predicted.step_time_s
    step_time_s = new.predicted.step_time_s
    batches = new.replica_batches or ()
    return {
        "devices_before": old.mesh.devices,
        "devices": new.mesh.devices,
        "idle": new.mesh.idle + len(found.left.stranded),
        "lost": list(found.left.lost),
        "layout": new.layout.model_dump(mode="json"),
        "global_batch": new.inputs.job.global_batch,
        "replica_batches": [batch.model_dump(mode="json") for batch in batches] or None,
        "step_time_before_s": before,
        "step_time_s": step_time_s,
        "slower_by": significant(step_time_s / before - 1),
        "lower_bound_s": new.search.lower_bound,
        "gap": new.search.gap,
        "price_of_move": found.price,
        "move": reshard_document(found.chosen.move) | {"tiers": _tiers(found.chosen)},
        "candidates": new.search.candidates,
        "weighed": 1 + len(found.others),
        "devices_of_ranks": found.chosen.seats.tolist(),
    }


def _tiers(candidate: Candidate) -> list[dict[str, Any]]:
    """Give what crosses each tier, of which nobody looked for the least busy senders."""
    tiers = reshard_document(candidate.move)["tiers"]
    return [{name: value for name, value in tier.items() if name != "least_busiest_bytes"} for tier in tiers]


def render_replan(console: Console, old: Plan, found: Replanned, *, files: Sequence[Path]) -> None:
    """Print the step before and after, how the batch is shared out, and what moves over which tier."""
    new = found.chosen.plan
    table = plain_table("", ["", "before", "after"])
    add_row(table, "devices", f"{old.mesh.devices:,}", _devices(found))
    add_row(table, "layout", describe(old.layout.layout()), describe(new.layout.layout()))
    add_row(table, "micro-batches", _batches(old), _batches(new))
    slower = new.predicted.step_time_s / old.predicted.step_time_s - 1
    after = f"{shown_seconds(new.predicted.step_time_s)}, {shown_error(slower)}"
    add_row(table, "step", shown_seconds(old.predicted.step_time_s), after)
    console.print(table)
    batch = new.inputs.job.global_batch
    console.print(f"the global batch stays {batch:,} sequences, each of which counts 1/{batch:,} of the gradient")
    console.print(_bound(new))
    _render_move(console, found)
    for file in files:
        console.print(f"written to {printable(str(file))}", markup=False)


def _devices(found: Replanned) -> str:
    plan, left = found.chosen.plan, found.left
    idle = plan.mesh.idle + len(left.stranded)
    lost = f"{len(left.lost):,} lost" if left.lost else "none lost"
    return f"{plan.mesh.devices:,}, {idle:,} idle, {lost}"


def _batches(plan: Plan) -> str:
    if plan.replica_batches is None:
        each = plan.inputs.job.global_batch // (plan.layout.data_parallel * plan.layout.micro_batch)
        return f"{each} on each replica"
    return ", ".join(f"{batch.micro_batches} on {batch.replicas} replicas" for batch in plan.replica_batches)


def _bound(plan: Plan) -> str:
    if plan.search.proof == "given":
        return "all layouts whose replicas share the batch evenly were searched, and none is faster on so many devices"
    bound = shown_seconds(plan.search.lower_bound)
    return f"{shown_share(plan.search.gap)} above {bound}, the least that is proved of layouts that share it evenly"


def _render_move(console: Console, found: Replanned) -> None:
    move = found.chosen.move
    table = plain_table("What moves", ["round"], ["bytes", "busiest sender", "busiest receiver", "time"])
    for each in move.traffic:
        sizes = (each.bytes, each.busiest_sender_bytes, each.busiest_receiver_bytes)
        time = "?" if each.time_s is None else shown_seconds(each.time_s)
        add_row(table, each.tier, *map(shown_volume, sizes), time)
    if not move.traffic:
        console.print("nothing moves")
        return
    console.print(table)
    weighed = f"a second of it weighs {found.price:g} s of each step"
    console.print(f"{shown_volume(move.moved_bytes)} in {shown_seconds(found.chosen.move_s)}; {weighed}")
    if move.lost_bytes:
        console.print(
            f"{shown_volume(move.lost_bytes)} of it is on no device any more: it comes from a checkpoint of this step, "
            "or all state goes back to an older one"
        )
