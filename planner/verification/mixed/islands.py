"""The islands are those that the cluster's groups come to, each in one chain or idle, and the shape says so."""

from dataclasses import dataclass

from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.mixed_entry import GroupEntry
from meshwright.planner.mixed.plan_schema import MixedPlan
from meshwright.planner.verification.check import Failures, Found, same


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Nodes of a group that are alike; compute, network: what is left of their rates, and of those into outer tiers."""

    group: GroupEntry
    nodes: tuple[int, ...]
    devices: int
    device: DeviceEntry
    compute: float
    network: float


def parts_of(plan: MixedPlan) -> list[Part]:
    """Give the parts of all groups: of each its whole nodes, then those of each way to be degraded, as listed."""
    found: list[Part] = []
    for group in plan.inputs.cluster.groups:
        cluster = group.cluster
        if isinstance(cluster, str) or isinstance(cluster.device, str):
            continue
        wrong = {each.node: each for each in group.degrade}
        by_way: dict[tuple[float, float], list[int]] = {(1.0, 1.0): []}
        for node in range(-(-cluster.devices // cluster.devices_per_node)):
            each = wrong.get(node)
            if each is None:
                by_way[1.0, 1.0].append(node)
            elif not each.missing:
                by_way.setdefault((each.compute, each.network), []).append(node)
        for (compute, network), nodes in by_way.items():
            if nodes:
                part = Part(
                    group=group,
                    nodes=tuple(nodes),
                    devices=min(len(nodes) * cluster.devices_per_node, cluster.devices),
                    device=cluster.device,
                    compute=compute,
                    network=network,
                )
                found.append(part)
    return found


def islands(plan: MixedPlan) -> Found:
    """Check that the islands are the parts of the cluster's groups, and that each is in one chain or idle."""
    return f"{len(plan.mixed.islands)} islands, each once; {len(plan.mixed.idle)} idle", _islands(plan)


def _islands(plan: MixedPlan) -> Failures:
    used = [island for chain in plan.mixed.chains for island in chain.islands]
    if sorted([*used, *plan.mixed.idle]) != list(range(len(plan.mixed.islands))):
        yield "mixed.chains", f"islands {used} and idle {list(plan.mixed.idle)} aren't each of the islands once"
    names = [island.name for island in plan.mixed.islands]
    for number, name in enumerate(names):
        if name in names[:number]:
            yield f"mixed.islands.{number}.name", f"two islands are called {name!r:.60}"
    expected = parts_of(plan)
    if len(expected) != len(names):
        yield "mixed.islands", f"are {len(names)}; the groups come to {len(expected)}"
        return
    share = 1 - plan.inputs.job.memory_headroom
    for number, (island, part) in enumerate(zip(plan.mixed.islands, expected, strict=True)):
        where = f"mixed.islands.{number}"
        if not island.name.startswith(part.group.name):
            yield f"{where}.name", f"is {island.name!r:.60}, of the group {part.group.name!r:.60}"
        for field, told, wanted in (
            ("group", island.group, part.group.name),
            ("nodes", list(island.nodes), list(part.nodes)),
            ("device", island.device, part.device.name),
            ("devices", island.devices, part.devices),
        ):
            if told != wanted:
                yield f"{where}.{field}", f"is {told!s:.60}; the cluster has {wanted!s:.60}"
        if not same(island.memory_limit_bytes, part.device.memory.capacity * share):
            limit = part.device.memory.capacity * share
            told_bytes = island.memory_limit_bytes
            yield (
                f"{where}.memory_limit_bytes",
                f"is {told_bytes}; the device's memory less the headroom is {limit:.0f}",
            )


def shape(plan: MixedPlan) -> Found:
    """Check that the shape's words, and which axis crosses links, are what the chains say."""
    return plan.mixed.shape, _shape(plan)


def _shape(plan: MixedPlan) -> Failures:
    chains = plan.mixed.chains
    names = [" > ".join(plan.mixed.islands[island].name for island in chain.islands) for chain in chains]
    if plan.mixed.shape != " | ".join(names):
        yield "mixed.shape", f"is {plan.mixed.shape!r:.80}; the chains are {' | '.join(names)!r:.80}"
    crossing = {
        (False, False): "none",
        (True, False): "data",
        (False, True): "pipeline",
        (True, True): "data and pipeline",
    }[len(chains) > 1, any(len(chain.islands) > 1 for chain in chains)]
    if plan.mixed.crossing != crossing:
        yield "mixed.crossing", f"is {plan.mixed.crossing}; the chains let {crossing} cross the links"
