"""An explanation of a plan, as JSON and as tables."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from meshwright.cli.render.tables import add_row, bars, plain_table
from meshwright.cli.render.units import shown_bytes, shown_error, shown_seconds, shown_share
from meshwright.planner.explain import Contrast, Explanation, Loss, Part
from meshwright.planner.layout.description import describe
from meshwright.planner.plan_schema import OffloadSection
from meshwright.planner.why_not import WhyNot

LOSSES_SHOWN = 3
LEAST_SHARE_SHOWN = 0.01


def explanation_document(explanation: Explanation) -> dict[str, Any]:
    """Give the JSON form of an explanation."""
    document = asdict(replace(explanation, offload=None))
    if explanation.offload is None:
        del document["offload"]
        return document
    return document | {"offload": explanation.offload.model_dump(mode="json")}


def render_explanation(console: Console, explanation: Explanation) -> None:
    """Print what binds, where time and memory go, what was rejected, and what each alternative loses and where."""
    console.print(Text(f"The layout: {describe(explanation.layout)}."))
    if explanation.offload is not None:
        _render_offload(console, explanation.offload)
    shares = ", ".join(f"{part.name} {shown_share(part.share)}" for part in explanation.bounds)
    console.print(Text(f"The step is bound by {explanation.bound}: {shares}."))
    verdict = "memory binds" if explanation.memory_binds else "memory doesn't bind"
    console.print(Text(f"The worst rank fills {shown_share(explanation.memory_share)} of the limit: {verdict}."))
    bars(console, "Where the time goes", _amounts(explanation.time), shown=shown_seconds, total="step")
    bars(console, "Where the memory goes", _amounts(explanation.memory), shown=shown_bytes, total="allocated")
    _render_rejected(console, explanation.rejected)
    for other in explanation.alternatives:
        _render_contrast(console, other)


def _render_offload(console: Console, offload: OffloadSection) -> None:
    """Print where the time of an offloaded step goes, before what is without offloading."""
    memory = offload.memory_bytes
    console.print(
        Text(
            f"With offloading the step takes {shown_seconds(offload.step_time_s)}, at least "
            f"{shown_seconds(offload.lower_bound_s)} by any such split; the device holds "
            f"{shown_bytes(memory.device)} of {shown_bytes(offload.budget_bytes)}, "
            f"the host {shown_bytes(memory.host)} a rank."
        )
    )
    bars(console, "Where the time goes with offloading", offload.breakdown_s, shown=shown_seconds, total="step")
    console.print(Text("All that follows is without offloading, on devices of any memory."))


def why_not_document(answer: WhyNot) -> dict[str, Any]:
    """Give the JSON form of the answer to why a plan isn't another way."""
    return asdict(answer)


def render_why_not(console: Console, answer: WhyNot) -> None:
    """Print the best layout of another way beside the plan, or why there is none."""
    asked = " and ".join(option.removeprefix("--fix ") for option in answer.asked)
    if answer.best is None:
        console.print(Text(f"Not {asked}: {answer.refused}."))
        for line in (answer.rule, answer.nearest_miss):
            if line:
                console.print(Text(f"  {line}"))
    elif answer.already:
        console.print(Text(f"The plan has {asked}, and no layout that has is better."))
    else:
        console.print(Text(f"The best with {asked} beside the plan, by what it loses (+) and gains (-):"))
        _render_contrast(console, answer.best)


def _amounts(parts: Sequence[Part]) -> dict[str, float]:
    return {part.name: part.amount for part in parts}


def _render_rejected(console: Console, rejected: Sequence[Part]) -> None:
    table = plain_table("Why others were rejected", ["because"], ["candidates", "share"])
    for part in rejected:
        add_row(table, part.name, f"{part.amount:,.0f}", shown_share(part.share))
    if table.row_count:
        console.print(table)


def _render_contrast(console: Console, other: Contrast) -> None:
    console.print(Text(f"Instead {describe(other.layout)}:", style="bold"))
    slower = f"{shown_seconds(other.step_time_s)} ({shown_error(other.slower_by)})"
    console.print(Text(f"  step {slower}: {_losses(other.time, shown_seconds)}"))
    console.print(Text(f"  memory {shown_bytes(other.peak_bytes)}: {_losses(other.memory, shown_bytes)}"))


def _losses(losses: Sequence[Loss], shown: Callable[[float], str]) -> str:
    """Name the largest differences, without those that are next to nothing beside the largest."""
    words = [
        f"{loss.name.replace('_', ' ')} {'+' if loss.amount > 0 else '-'}{shown(abs(loss.amount))}"
        for loss in losses[:LOSSES_SHOWN]
        if abs(loss.amount) >= LEAST_SHARE_SHOWN * abs(losses[0].amount)
    ]
    return ", ".join(words) or "no difference"
