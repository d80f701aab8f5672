"""From what a user names to the plan of a mixed cluster."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.errors import InputError
from meshwright.catalog.mixed_entry import MixedClusterEntry
from meshwright.catalog.mixed_lookup import find_mixed, written_out
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.stack_entry import StackEntry
from meshwright.catalog.uncertainty import shipped_uncertainty
from meshwright.costmodels.model_flop import model_flop
from meshwright.hardware.islands import Islands, islands_of
from meshwright.planner.digest import digest_of
from meshwright.planner.figures import significant, significant_bytes
from meshwright.planner.job_inputs import inputs_of, job_of
from meshwright.planner.layout.objective import Objective
from meshwright.planner.mixed.chain_sections import chain_section, link_bytes
from meshwright.planner.mixed.intervals import memory_interval, step_interval, step_reasons
from meshwright.planner.mixed.plan_schema import (
    ChainSection,
    Crossing,
    ExchangeSection,
    IslandSection,
    MixedInputs,
    MixedPlan,
    MixedPredictedSection,
    MixedSearchSection,
    MixedSection,
    ShapeSection,
    WaySection,
)
from meshwright.planner.mixed.question import Mixed
from meshwright.planner.mixed.search import search_mixed
from meshwright.planner.mixed.shapes import Shape, describe_shape
from meshwright.planner.mixed.solution import MixedResult
from meshwright.planner.mixed.ways import Way, permissions
from meshwright.planner.plan_schema import FORMAT_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedMixedPlan:
    """A plan, and how long its search took, which is no part of it."""

    plan: MixedPlan
    search_s: float


def plan_mixed(
    model: str | Path | ModelEntry,
    cluster: str | MixedClusterEntry,
    *,
    links: Sequence[str] = (),
    stack: str | StackEntry | None = None,
    allow: Sequence[str] = (),
    **job: Any,  # noqa: ANN401 - the fields of JobSection
) -> MixedPlan:
    """Find the best way to train a model on a mixed cluster.

    Args:
        model: a catalog name, the path of a model file or of a Hugging Face config, or an entry.
        cluster: a file with groups, clusters joined by plus signs, or an entry.
        links: what joins those joined by plus signs: "100 Gb/s, 20 ms".
        stack: the training software; by default that of the groups' devices, where it is one.
        allow: ways that change the mathematics that may be used: diloco, noloco, co2, compress, skip-stages.
        job: the fields of JobSection; the objective is time.

    Raises InputError, MissingData, and Infeasible where nothing fits.

    """
    return plan_of_mixed(mixed_inputs(model, cluster, links=links, stack=stack, allow=allow, **job)).plan


def mixed_inputs(
    model: str | Path | ModelEntry,
    cluster: str | MixedClusterEntry,
    *,
    links: Sequence[str] = (),
    stack: str | StackEntry | None = None,
    allow: Sequence[str] = (),
    **job: Any,  # noqa: ANN401 - the fields of JobSection
) -> MixedInputs:
    """Resolve what a user names. Raises InputError."""
    entry = find_mixed(cluster, links) if isinstance(cluster, str) else written_out(cluster)
    stacks: dict[str, str] = {}
    for number, group in enumerate(entry.groups):
        if isinstance(group.cluster, str) or not isinstance(group.cluster.device, DeviceEntry):
            raise InputError("isn't written out", path=f"groups.{number}.cluster")
        stacks.setdefault(group.cluster.device.stack, group.name)
    if stack is None and len(stacks) > 1:
        words = ", ".join(f"{name} for {group}" for name, group in stacks.items())
        raise InputError(
            f"the groups' usual training software differs: {words}", path="stack", hint="choose one with --stack"
        )
    first = entry.groups[0].cluster
    inputs = inputs_of(model, first, stack=stack or next(iter(stacks)), **job)
    if inputs.job.objective is not Objective.TIME:
        raise InputError("is time alone for mixed clusters", path="objective", hint="leave out --objective")
    asked = tuple(f"{each.way}:{each.number}" for each in permissions(allow))
    found = MixedInputs(job=inputs.job, model=inputs.model, cluster=entry, stack=inputs.stack, allow=asked)
    _require_groups_hold(found, islands_of(entry))
    document = found.model_dump(mode="json")
    return found.model_copy(update={"digest": digest_of(document)})


def _require_groups_hold(inputs: MixedInputs, islands: Islands) -> None:
    """Raise InputError where a tensor or expert group that is asked for is larger than a group of devices."""
    asked = inputs.job.limits.fix
    names = [group.name for group in inputs.cluster.groups]
    for island in islands.islands:
        for field in ("tensor_parallel", "expert_parallel", "context_parallel"):
            degree = int(asked.get(field, 1))
            if degree > island.cluster.devices:
                raise InputError(
                    f"{island.group} has {island.cluster.devices} devices, fewer than {field} {degree}, "
                    "whose groups stay inside an island",
                    path=f"groups.{names.index(island.group)}.nodes",
                    hint=f"ask for {field} {island.cluster.devices} at most",
                )


def asked_of(inputs: MixedInputs) -> Mixed:
    """Give what is asked of the search. Raises MissingData."""
    entry = inputs.cluster
    islands = islands_of(entry)
    whole = inputs_of(
        inputs.model.entry,
        entry.groups[0].cluster,
        stack=inputs.stack.entry,
        **{name: getattr(inputs.job, name) for name in type(inputs.job).model_fields},
    )
    job = job_of(whole)
    jobs = tuple(replace(job, cluster=island.cluster) for island in islands.islands)
    for each in jobs:
        each.cluster.device.peak(each.precision)
    share = 1 - inputs.job.memory_headroom
    limits = tuple(significant_bytes(island.cluster.device.memory_bytes * share) for island in islands.islands)
    return Mixed(
        islands=islands,
        jobs=jobs,
        memory_limits_bytes=limits,
        limits=inputs.job.limits,
        allow=permissions(inputs.allow),
    )


def plan_of_mixed(inputs: MixedInputs) -> TimedMixedPlan:
    """Make the plan of resolved inputs. Raises MissingData and Infeasible."""
    start = perf_counter()
    asked = asked_of(inputs)
    result = search_mixed(asked)
    made = _assembled(inputs, asked, result)
    return TimedMixedPlan(plan=made, search_s=perf_counter() - start)


def _assembled(inputs: MixedInputs, asked: Mixed, result: MixedResult) -> MixedPlan:
    best = result.best
    used = {island for chain in best.shape for island in chain}
    exchange = None
    if best.across is not None:
        exchange = ExchangeSection(
            across=best.across,
            gradients_s=significant(best.exchange.gradients_s),
            parameters_s=significant(best.exchange.parameters_s),
            sent_bytes=significant_bytes(best.exchange.sent_bytes),
        )
    chains = tuple(chain_section(asked, party) for party in best.parties)
    mixed = MixedSection(
        shape=describe_shape(best.shape, asked.islands),
        crossing=crossing_of(best.shape),
        islands=_islands(asked, chains),
        idle=tuple(number for number in range(len(asked.jobs)) if number not in used),
        chains=chains,
        exchange=exchange,
        way=_way(best.way),
    )
    return MixedPlan(
        version=FORMAT_VERSION,
        meshwright=version("meshwright"),
        mixed=mixed,
        predicted=_predicted(asked, result),
        search=_searched(result),
        inputs=inputs,
    )


def _islands(asked: Mixed, chains: Sequence[ChainSection]) -> tuple[IslandSection, ...]:
    """Give the islands, with what the fullest device of each holds."""
    found = []
    for number, (island, job) in enumerate(zip(asked.islands.islands, asked.jobs, strict=True)):
        held = [stage.peak_bytes for chain in chains for stage in chain.stages if stage.island == number]
        found.append(
            IslandSection(
                name=island.name,
                group=island.group,
                nodes=island.nodes,
                device=island.cluster.device.name,
                devices=island.cluster.devices,
                memory_limit_bytes=asked.memory_limits_bytes[number],
                peak_bytes=max(held) if held else None,
                nvidia_smi_interval_bytes=memory_interval(job, float(max(held))) if held else None,
            )
        )
    return tuple(found)


def _way(way: Way | None) -> WaySection | None:
    if way is None:
        return None
    settings = {name: significant(value) for name, value in way.settings.items()}
    return WaySection(name=way.name, settings=settings, trades=way.trades, source=way.source)


def crossing_of(shape: Shape) -> Crossing:
    """Name the axis that crosses links."""
    if len(shape) > 1:
        return "data and pipeline" if any(len(chain) > 1 for chain in shape) else "data"
    return "pipeline" if len(shape[0]) > 1 else "none"


def _searched(result: MixedResult) -> MixedSearchSection:
    step_s, bound_s = significant(result.best.step_time_s), significant(result.bound_s)
    gap = significant(max(step_s / bound_s - 1, 0.0))
    return MixedSearchSection(
        lower_bound=min(bound_s, step_s),
        gap=gap if gap > 1e-8 else 0.0,
        proof="optimal" if gap <= 1e-8 else "bounded",
        shapes=tuple(
            ShapeSection(
                shape=each.words,
                bound_s=significant(each.bound_s) if each.bound_s < 1e12 else None,
                step_time_s=None if each.step_time_s is None else significant(each.step_time_s),
            )
            for each in result.shapes
        ),
    )


def _predicted(asked: Mixed, result: MixedResult) -> MixedPredictedSection:
    job, step_s = asked.jobs[0], result.best.step_time_s
    peak = sum(each.cluster.device.peak(each.precision) * each.cluster.devices for each in asked.jobs)
    prices = [each.cluster.device.price_usd_per_hour for each in asked.jobs]
    known = [price * each.cluster.devices for price, each in zip(prices, asked.jobs, strict=True) if price is not None]
    sent, price = link_bytes(asked, result.best)
    per_million = 1e6 / job.tokens_per_step
    return MixedPredictedSection(
        step_time_s=significant(step_s),
        step_time_interval_s=step_interval(asked, result.best),
        interval_level=shipped_uncertainty().level,
        wider_because=step_reasons(asked, result.best),
        tokens_per_s=significant(job.tokens_per_step / step_s),
        mfu=significant(model_flop(job) / (step_s * peak)),
        link_bytes=significant_bytes(sent),
        usd_per_million_tokens=(
            significant(sum(known) * step_s / 3600 * per_million) if len(known) == len(prices) else None
        ),
        link_usd_per_million_tokens=significant(price * per_million),
    )
