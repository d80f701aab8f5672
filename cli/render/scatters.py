"""Splits of steps, as JSON and as lines."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from meshwright.cli.render.tables import add_row, plain_table
from meshwright.costmodels.layout import IntArray
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.measured_groups import FittedCosts
from meshwright.planner.sequences.scattered import Scattered

# Steps of which each has a row; of more there is one of them all.
MOST_ROWS = 20


# The largest median error at which a fit is taken for granted: steps of one shape differ by about so much.
GOOD_FIT = 0.05


def scatters_document(steps: Sequence[Scattered], *, fit: FittedCosts | None = None) -> dict[str, Any]:
    """Give the JSON form: a split of each step, and what the costs were fitted to, if they were."""
    document: dict[str, Any] = {"steps": [step.document() for step in steps]}
    return document if fit is None else {"fit": fit.document(), **document}


def render_scatters(
    console: Console,
    steps: Sequence[Scattered],
    lengths: Sequence[IntArray],
    *,
    costs: GroupCosts,
    fit: FittedCosts | None,
    file: Path | None,
) -> None:
    """Print each step's figures, the groups of the first, and what came of all.

    The gap is to what no split is below; one size is the best split into groups of one size.
    """
    held = int((costs.most_tokens // costs.degrees).min()) // costs.devices_a_rank
    devices = costs.ranks * costs.devices_a_rank
    table = plain_table(
        f"Sequences of a step on {devices} devices, {held:,} tokens each",
        ["step"],
        ["sequences", "tokens", "longest", "time", "gap", "one size", "faster"],
    )
    for number, (step, own) in enumerate(zip(steps[:MOST_ROWS], lengths, strict=False)):
        add_row(
            table,
            number,
            f"{len(own):,}",
            f"{own.sum():,}",
            f"{own.max():,}",
            f"{step.step_time_s:.3f} s",
            f"{step.gap:.2%}",
            f"{step.homogeneous_step_time_s:.3f} s",
            f"{step.speedup:.2f} x",
        )
    console.print(table)
    found_s = sum(step.seconds for step in steps) / len(steps)
    console.print(f"A step's split was found in {found_s * 1e3:.0f} ms")
    if len(steps) > MOST_ROWS:
        total_s = sum(step.step_time_s for step in steps)
        apart_s = sum(step.homogeneous_step_time_s for step in steps)
        console.print(f"{len(steps)} steps: {total_s:.1f} s, in groups of one size {apart_s:.1f} s")
    if fit is not None:
        _render_fit(console, fit)
    _render_groups(console, steps[0])
    if file is not None:
        console.print(f"written to {file}", soft_wrap=True)


def _render_fit(console: Console, fit: FittedCosts) -> None:
    console.print(
        f"Fitted to {fit.groups} timed groups: {fit.median_error:.1%} off in the median, {fit.worst_error:.1%} at most",
        soft_wrap=True,
    )
    if fit.median_error > GOOD_FIT:
        console.print("warning: times aren't well told from lengths and degrees; the split is no better than they are")
    if fit.unmeasured:
        console.print(
            f"warning: none timed of {' or '.join(fit.unmeasured)}; what those exchange counts as nothing",
            soft_wrap=True,
        )


def _render_groups(console: Console, step: Scattered) -> None:
    table = plain_table(
        f"Groups of step 0, {step.mode}", ["micro-batch", "groups x ranks"], ["sequences", "tokens", "longest time"]
    )
    for number, groups in enumerate(step.micro_batches):
        sizes = Counter(group.degree for group in groups)
        add_row(
            table,
            number,
            ", ".join(f"{count} x {size}" for size, count in sorted(sizes.items(), reverse=True)),
            f"{sum(len(group.sequences) for group in groups):,}",
            f"{sum(group.tokens for group in groups):,}",
            f"{max(group.time_s for group in groups):.3f} s",
        )
    console.print(table)
