"""How much of the time is of use, as JSON and as a table."""

from typing import Any

from rich.console import Console

from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.units import shown_duration, shown_rate, shown_volume
from meshwright.planner.figures import significant
from meshwright.planner.goodput import Goodput, Option


def goodput_document(found: Goodput) -> dict[str, Any]:
    """Give the JSON form of an answer; `options` are all ways of saving, best first."""
    saving, spread = found.saving, found.spread
    return {
        "goodput": significant(found.best.interval.goodput),
        "simulated": {
            "mean": significant(spread.mean),
            "standard_error": significant(spread.error),
            "low": significant(spread.low),
            "high": significant(spread.high),
            "level": 0.9,
            "duration_s": found.duration_s,
        },
        "mtbf_s": significant(found.mtbf_s),
        "restart_s": found.failures.restart_s,
        "soft_share": found.failures.soft_share,
        "state_bytes": round(saving.total_bytes),
        "device_bytes": round(saving.device_bytes),
        "snapshot_s": significant(saving.snapshot_s),
        "mirror_s": significant(saving.mirror_s),
        "storage_s": significant(saving.storage_s),
        "options": [_option(option, saving.step_s) for option in found.options],
    }


def _option(option: Option, step_s: float) -> dict[str, Any]:
    interval, near = option.interval, option.scheme.near
    return {
        "level": str(option.scheme.level),
        "lazy": option.scheme.lazy,
        "steps": interval.steps,
        "interval_s": significant(interval.steps * step_s),
        "storage_interval_s": significant(interval.steps * interval.copies * step_s),
        "blocked_s": significant(option.scheme.storage.blocked_s if near is None else near.blocked_s),
        "goodput": significant(interval.goodput),
    }


def render_goodput(console: Console, found: Goodput) -> None:
    """Print a row a way of saving, best first, and what simulated runs of the best come to."""
    saving, spread = found.saving, found.spread
    console.print(
        f"a failure every {shown_duration(found.mtbf_s)} on {saving.devices:,} devices; "
        f"{shown_volume(saving.total_bytes)} of state, {shown_volume(saving.device_bytes)} on the busiest device"
    )
    console.print(
        f"to the host {shown_rate(saving.host_bytes_per_s)} a device, to storage "
        f"{shown_rate(saving.storage_bytes_per_s)} in all, {shown_duration(found.failures.restart_s)} to restart"
    )
    right = ["every", "on storage every", "waits", "of use"]
    table = plain_table("", ["level", "copies"], right)
    for option in found.options:
        told = _option(option, saving.step_s)
        add_row(
            table,
            told["level"],
            "lazy" if told["lazy"] else "synchronous",
            f"{shown_duration(told['interval_s'])}, {told['steps']:,} step{'s' if told['steps'] > 1 else ''}",
            shown_duration(told["storage_interval_s"]),
            shown_duration(told["blocked_s"]),
            _share(told["goodput"]),
        )
    console.print(table)
    console.print(
        f"{_share(found.best.interval.goodput)} of the time is of use; in simulated runs of "
        f"{shown_duration(found.duration_s)} {_share(spread.mean)} on average, nine of ten from {_share(spread.low)} "
        f"to {_share(spread.high)}"
    )


def _share(value: float) -> str:
    return f"{value:.2%}".replace("%", " %")
