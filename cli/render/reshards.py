"""What moves between two plans, as JSON and as a table."""

from pathlib import Path
from typing import Any

from rich.console import Console

from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.text import printable
from meshwright.cli.render.units import shown_seconds, shown_share, shown_volume
from meshwright.planner.figures import significant
from meshwright.planner.resharding import Reshard, Traffic


def reshard_document(found: Reshard) -> dict[str, Any]:
    """Give the JSON form of what moves; times that aren't known are null."""
    return {
        "held_bytes": found.held_bytes,
        "kept_bytes": found.kept_bytes,
        "moved_bytes": found.moved_bytes,
        "lost_bytes": found.lost_bytes,
        "time_s": None if found.time_s is None else significant(found.time_s),
        "moves": sum(len(each.atom) for each in found.rounds),
        "tiers": [_tier(each) for each in found.traffic],
    }


def _tier(each: Traffic) -> dict[str, Any]:
    return {
        "tier": each.tier,
        "bytes": each.bytes,
        "busiest_sender_bytes": each.busiest_sender_bytes,
        "least_busiest_bytes": significant(each.least_busiest_bytes),
        "busiest_receiver_bytes": each.busiest_receiver_bytes,
        "time_s": None if each.time_s is None else significant(each.time_s),
    }


def render_reshard(console: Console, found: Reshard, *, file: Path | None) -> None:
    """Print a row a tier, in the order in which they are crossed, and what all comes to."""
    table = plain_table("", ["round"], ["bytes", "busiest sender", "at least", "busiest receiver", "time"])
    for each in found.traffic:
        add_row(
            table,
            each.tier,
            shown_volume(each.bytes),
            shown_volume(each.busiest_sender_bytes),
            shown_volume(each.least_busiest_bytes),
            shown_volume(each.busiest_receiver_bytes),
            "?" if each.time_s is None else shown_seconds(each.time_s),
        )
    if found.traffic:
        console.print(table)
    kept = found.kept_bytes / found.held_bytes
    console.print(f"{shown_volume(found.held_bytes)} of state, {shown_share(kept)} of it where it is to be already")
    if found.lost_bytes:
        console.print(f"{shown_volume(found.lost_bytes)} of it on no device any more: from a checkpoint")
    if found.time_s is None:
        console.print("a checkpoint is read and written as fast as --storage says")
    else:
        moves = sum(len(each.atom) for each in found.rounds)
        console.print(f"{moves:,} moves in {shown_seconds(found.time_s)}")
    if file is not None:
        console.print(f"written to {printable(str(file))}", markup=False)
