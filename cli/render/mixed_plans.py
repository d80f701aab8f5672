"""A plan of a mixed cluster, as JSON and as tables."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from meshwright.cli.render.tables import add_row, plain_table
from meshwright.cli.render.text import printable
from meshwright.cli.render.units import shown_bytes, shown_seconds, shown_share, shown_span
from meshwright.planner.layout.description import describe
from meshwright.planner.mixed.plan_schema import ChainSection, MixedPlan


def mixed_document(plan: MixedPlan, *, seconds: float | None) -> dict[str, Any]:
    """Give the JSON form of a plan; `seconds` is how long its search took, null for one that was read from a file."""
    document = plan.model_dump(mode="json")
    return {
        "model": plan.inputs.model.entry.name,
        "cluster": plan.inputs.cluster.name,
        "devices": plan.devices,
        "mixed": document["mixed"],
        "predicted": document["predicted"],
        "search": document["search"] | {"seconds": seconds},
        "digest": plan.inputs.digest,
    }


def render_mixed(console: Console, plan: MixedPlan, *, seconds: float | None, file: Path | None) -> None:
    """Print a plan: what it comes to, the islands, their stages and shares, and what the search knows of each shape."""
    for line in _summary(plan):
        console.print(Text(printable(line)))
    _render_islands(console, plan)
    for chain in plan.mixed.chains:
        _render_replicas(console, plan, chain)
        if len(chain.islands) > 1:
            _render_stages(console, plan, chain)
    _render_search(console, plan, seconds=seconds)
    if file is not None:
        console.print(Text(f"written to {file}"))


def _summary(plan: MixedPlan) -> Iterator[str]:
    inputs, predicted, mixed = plan.inputs, plan.predicted, plan.mixed
    yield f"{inputs.model.entry.name} on {plan.devices:,} devices of {inputs.cluster.name}, {inputs.stack.entry.name}"
    yield (
        f"{inputs.job.global_batch:,} sequences of {inputs.job.sequence_length:,} tokens a step, {inputs.job.precision}"
    )
    yield (
        f"{predicted.tokens_per_s:,.0f} tokens/s, MFU {shown_share(predicted.mfu)}, "
        f"step {shown_seconds(predicted.step_time_s)}"
    )
    span = predicted.step_time_interval_s
    yield f"{predicted.interval_level:.0%} sure: step {shown_span(span.low, span.high, shown=shown_seconds)}"
    for reason in predicted.wider_because:
        yield f"less sure, since {reason}"
    if inputs.job.limits:
        yield f"asked for: {' '.join(inputs.job.limits.options())}"
    if predicted.usd_per_million_tokens is not None:
        cost = f"{predicted.usd_per_million_tokens:.2f} USD per million tokens"
        links = predicted.link_usd_per_million_tokens
        yield cost + (f", and {links:.4f} for what links pass" if links else "")
    crossing = {
        "none": "one island trains alone",
        "data": "data parallelism crosses the links",
        "pipeline": "the pipeline crosses the links",
        "data and pipeline": "the pipeline and data parallelism cross the links",
    }
    yield f"{mixed.shape}: {crossing[mixed.crossing]}, {predicted.link_bytes / 1e9:,.0f} GB a step"
    if mixed.way is not None:
        yield f"by {mixed.way.name}, which was allowed: {mixed.way.trades} ({mixed.way.source})"
    elif mixed.exchange is not None:
        seconds = mixed.exchange.gradients_s + mixed.exchange.parameters_s
        yield (
            f"islands hold {mixed.exchange.across} of the optimizer's states; exchanging gradients takes "
            f"{shown_seconds(seconds)}, of which at most {shown_seconds(max(c.exposed_s for c in mixed.chains))} shows"
        )


def _render_islands(console: Console, plan: MixedPlan) -> None:
    table = plain_table("Islands", ["island", "layout"], ["devices", "layers", "sequences", "step", "memory"])
    for number, island in enumerate(plan.mixed.islands):
        chain = next((each for each in plan.mixed.chains if number in each.islands), None)
        if chain is None:
            add_row(table, f"{island.name}: {island.device}", "idle", f"{island.devices:,}", "", "", "", "")
            continue
        layout = chain.layouts[chain.islands.index(number)]
        stages = [stage for stage in chain.stages if stage.island == number]
        layers = sum(chunk[1] - chunk[0] + 1 for stage in stages for chunk in stage.chunks)
        peak = max(stage.peak_bytes for stage in stages)
        add_row(
            table,
            f"{island.name}: {island.device}",
            describe(layout.layout()),
            f"{island.devices:,}",
            str(layers),
            f"{chain.sequences:,}",
            shown_seconds(chain.own_step_s + chain.exposed_s),
            shown_bytes(peak),
        )
    console.print(table)


def _render_replicas(console: Console, plan: MixedPlan, chain: ChainSection) -> None:
    names = " > ".join(plan.mixed.islands[island].name for island in chain.islands)
    words = ", ".join(
        f"{alike.replicas} of {alike.micro_batches} micro-batches"
        + (f" and one of {alike.last_micro_batch}" if alike.last_micro_batch else "")
        + f", gradient weight {alike.gradient_weight:.4g} each"
        for alike in chain.replicas
    )
    console.print(Text(printable(f"Replicas of {names}: {words}")))


def _render_stages(console: Console, plan: MixedPlan, chain: ChainSection) -> None:
    table = plain_table("", ["stages", "island", "layers each", "recomputed"], ["forward", "backward"])
    for (island, layers, again), alike in groupby(
        chain.stages, key=lambda stage: (stage.island, _layers(stage.chunks), stage.recomputed)
    ):
        own = list(alike)
        first, last = own[0].stage, own[-1].stage
        add_row(
            table,
            str(first) if first == last else f"{first}-{last}",
            plan.mixed.islands[island].name,
            str(layers),
            ", ".join(map(str, again or ())),
            shown_seconds(max(stage.forward_s for stage in own)),
            shown_seconds(max(stage.backward_s for stage in own)),
        )
    console.print(table)


def _layers(chunks: tuple[tuple[int, int], ...]) -> int:
    return sum(chunk[1] - chunk[0] + 1 for chunk in chunks)


def _render_search(console: Console, plan: MixedPlan, *, seconds: float | None) -> None:
    search = plan.search
    took = "" if seconds is None else f" in {seconds:.2f} s"
    table = plain_table(f"Search: {len(search.shapes)} shapes{took}", ["shape"], ["step", "not below"])
    for shape in search.shapes:
        step = "" if shape.step_time_s is None else shown_seconds(shape.step_time_s)
        add_row(table, shape.shape, step, "" if shape.bound_s is None else shown_seconds(shape.bound_s))
    console.print(table)
    if search.proof == "optimal":
        console.print(Text("Proved optimal: nothing of this space that fits is faster."))
    else:
        console.print(Text(f"The best found; nothing of this space is faster by more than {search.gap:.2%}."))
