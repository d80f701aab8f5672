"""What crosses links: each is there, and messages, the exchange of gradients and its price are what they pass.

Kruskal's tree is made anew here, with the order of `costmodels/island_links.py`: the widest edge first, of equals that
of the chains that come first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

from meshwright.catalog.cluster_entry import Topology
from meshwright.catalog.precision import Precision
from meshwright.planner.mixed.plan_schema import ChainSection, ExchangeSection, MixedPlan
from meshwright.planner.verification.check import Found, same
from meshwright.planner.verification.mixed.islands import Part, parts_of
from meshwright.planner.verification.mixed.model_size import BESIDE_MATRICES, model_size

Failures = Iterator[tuple[str, str]]

# Ways whose islands meet once in some steps: each waits for all of NoLoCo's meeting, and for what others don't hide.
STEPS_OF_THEIR_OWN = {"diloco", "noloco", "co2"}
# Bytes of an activation and of a parameter on the wire.
ACTIVATION_BYTES = PARAMETER_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What joins two islands, or two chains."""

    bytes_per_s: float
    latency_s: float
    usd_per_gigabyte: float = 0.0


Edge = tuple[int, int, Way]
"""Two chains, by number, and what joins them."""


def ways_of(plan: MixedPlan) -> dict[frozenset[int], Way]:
    """Give what joins each two islands that are joined: their groups' link, or of one group its outermost tier."""
    parts, named = parts_of(plan), {frozenset(link.between): link for link in plan.inputs.cluster.links}
    found: dict[frozenset[int], Way] = {}
    for one, other in combinations(range(len(parts)), 2):
        between = frozenset((parts[one].group.name, parts[other].group.name))
        if len(between) == 1:
            found[frozenset((one, other))] = _inside(parts[one], parts[other])
        elif between in named:
            link = named[between]
            found[frozenset((one, other))] = Way(
                bytes_per_s=link.bandwidth * link.left, latency_s=link.latency, usd_per_gigabyte=link.price or 0.0
            )
    return found


def _inside(one: Part, other: Part) -> Way:
    """Give the way between two parts of a group: what the weaker one's devices put into the tier that joins all."""
    cluster = one.group.cluster
    if isinstance(cluster, str):
        raise TypeError("groups of a plan are written out")
    tier = next(tier for tier in cluster.tiers if tier.group is None or tier.group >= cluster.devices)
    is_fabric = tier.topology is Topology.FABRIC
    rates = [part.devices * tier.bandwidth * (part.network if is_fabric else 1.0) for part in (one, other)]
    return Way(bytes_per_s=min(rates) * tier.efficiency / tier.oversubscription, latency_s=tier.latency)


def links(plan: MixedPlan) -> Found:
    """Check what crosses links: that they are there, each message's seconds, all bytes of a step, and their price."""
    return f"{len(plan.inputs.cluster.links)} links join what sends", _links(plan)


def _links(plan: MixedPlan) -> Failures:
    ways, names = ways_of(plan), [island.name for island in plan.mixed.islands]
    apart = False
    for number, chain in enumerate(plan.mixed.chains):
        for one, other in pairwise(chain.islands):
            if frozenset((one, other)) not in ways:
                apart = True
                yield f"mixed.chains.{number}.islands", f"no link joins {names[one]} and {names[other]}"
    if apart:
        return
    for number, chain in enumerate(plan.mixed.chains):
        yield from _messages(plan, chain, ways, f"mixed.chains.{number}")
    if (plan.mixed.exchange is None) != (len(plan.mixed.chains) == 1):
        yield "mixed.exchange", "is there where several chains train replicas, and only there"
        return
    tree = widest_tree(plan.mixed.chains, ways)
    if plan.mixed.exchange is not None and len(tree) != len(plan.mixed.chains) - 1:
        yield "mixed.exchange", "no links join all chains"
        return
    if plan.mixed.exchange is not None and plan.mixed.way is None:
        yield from _exchanged(plan, plan.mixed.exchange, tree)
    elif plan.mixed.exchange is not None:
        yield from _exchanged_late(plan, plan.mixed.exchange, tree)
        if len(plan.mixed.chains) > 1:
            yield from late_messages(plan, plan.mixed.exchange, tree, edges_of(plan.mixed.chains, ways))
    yield from _sent(plan, ways)


def _messages(plan: MixedPlan, chain: ChainSection, ways: dict[frozenset[int], Way], where: str) -> Failures:
    """Check one message over each link of a chain: the activations of a micro-batch of all replicas."""
    layout, pairs = chain.layouts[0], list(pairwise(chain.islands))
    if len(chain.crossing_s) != len(pairs):
        yield f"{where}.crossing_s", f"are {len(chain.crossing_s)}, over {len(pairs)} links"
        return
    if chain.buffered and not plan.inputs.stack.entry.overlap_pipeline:
        yield f"{where}.buffered", f"is true; {plan.inputs.stack.entry.name} sends nothing beside passes"
    tokens = plan.inputs.job.sequence_length * layout.data_parallel * layout.micro_batch
    for position, pair in enumerate(pairs):
        way = ways[frozenset(pair)]
        seconds = ACTIVATION_BYTES * plan.inputs.model.entry.hidden * tokens / way.bytes_per_s + way.latency_s
        if not same(chain.crossing_s[position], seconds):
            told = chain.crossing_s[position]
            yield f"{where}.crossing_s.{position}", f"is {told}; the activations of {tokens} tokens take {seconds:.9g}"


def edges_of(chains: tuple[ChainSection, ...], ways: dict[frozenset[int], Way]) -> list[Edge]:
    """Give the widest way between each two chains that are joined, as wide as what passes on inside them lets it be."""
    edges = []
    for one, other in combinations(range(len(chains)), 2):
        between = [
            ways[frozenset((first, second))]
            for first in chains[one].islands
            for second in chains[other].islands
            if frozenset((first, second)) in ways
        ]
        inner = [ways[frozenset(pair)] for number in (one, other) for pair in pairwise(chains[number].islands)]
        if between:
            best = sorted(between, key=lambda way: (-way.bytes_per_s, way.latency_s))[0]
            rate = min(way.bytes_per_s for way in (best, *inner))
            edges.append((one, other, Way(bytes_per_s=rate, latency_s=best.latency_s)))
    return edges


def widest_tree(chains: tuple[ChainSection, ...], ways: dict[frozenset[int], Way]) -> list[Edge]:
    """Give the edges between chains that join all of them with the widest narrowest one, fewer where none do."""
    edges = edges_of(chains, ways)
    held = {number: {number} for number in range(len(chains))}
    tree = []
    for one, other, way in sorted(edges, key=lambda edge: (-edge[2].bytes_per_s, edge[0], edge[1])):
        if other not in held[one]:
            joined = held[one] | held[other]
            held |= dict.fromkeys(joined, joined)
            tree.append((one, other, way))
    return tree


def reduce_bytes(plan: MixedPlan) -> int:
    """Give the bytes of a gradient on the wire: fp32 ones are whole, those of fp16 have no more than their sums."""
    stack = plan.inputs.stack.entry
    if plan.inputs.job.precision is Precision.FP16:
        return min(stack.reduce_bytes, stack.fp16_gradient_bytes)
    return 4 if plan.inputs.job.precision is Precision.FP32 else stack.reduce_bytes


def _exchanged(plan: MixedPlan, exchange: ExchangeSection, tree: list[Edge]) -> Failures:
    """Check the seconds of an exchange in full: by how many parameters the bytes are of, and the tree's edges."""
    gradient_bytes = reduce_bytes(plan)
    latency_s = sum(way.latency_s for _, _, way in tree)
    narrowest = min(way.bytes_per_s for _, _, way in tree)
    larger = max(_larger_side(tree, edge) / (len(tree) + 1) / edge[2].bytes_per_s for edge in tree)
    if str(exchange.across) == "copies":
        count = exchange.sent_bytes / (2 * gradient_bytes * len(tree))
        expected = (count * gradient_bytes / narrowest + 2 * latency_s, 0.0)
        other = count * (gradient_bytes + PARAMETER_BYTES) * larger + 2 * latency_s
    else:
        count = exchange.sent_bytes / ((gradient_bytes + PARAMETER_BYTES) * len(tree))
        expected = (count * gradient_bytes * larger + latency_s, count * PARAMETER_BYTES * larger + latency_s)
        other = count * gradient_bytes / narrowest + 2 * latency_s
    for field, told, seconds in zip(
        ("gradients_s", "parameters_s"), (exchange.gradients_s, exchange.parameters_s), expected, strict=True
    ):
        if not same(told, seconds):
            yield f"mixed.exchange.{field}", f"is {told}; {exchange.sent_bytes} bytes over the links take {seconds:.9g}"
    if sum(expected) > other * (1 + 1e-6):
        yield "mixed.exchange.across", f"is {exchange.across}; the other way takes {other:.9g} s"
    size = model_size(plan.inputs.model.entry, sequence_length=plan.inputs.job.sequence_length)
    if size is not None and not size.parameters * (1 - 1e-9) <= count <= size.parameters * (1 + BESIDE_MATRICES):
        yield "mixed.exchange.sent_bytes", f"are of {count:.0f} parameters; the matrices have {size.parameters}"
    for number, chain in enumerate(plan.mixed.chains):
        if chain.exposed_s > sum(expected) * 1.000001:
            yield f"mixed.chains.{number}.exposed_s", f"is {chain.exposed_s}, longer than the exchange"


def _larger_side(tree: list[Edge], without: Edge) -> int:
    """Give how many chains are on the larger side of an edge."""
    side = {without[0]}
    for _ in tree:
        for edge in tree:
            if edge is not without and side & {edge[0], edge[1]}:
                side |= {edge[0], edge[1]}
    return max(len(side), len(tree) + 1 - len(side))


def _exchanged_late(plan: MixedPlan, exchange: ExchangeSection, tree: list[Edge]) -> Failures:
    """Check the exchange of a way that sends less, or less often, than gradients in full."""
    way = plan.mixed.way
    if way is None or str(exchange.across) != "copies":
        yield "mixed.exchange.across", "is copies of ways that change the mathematics"
        return
    latency_s = 2 * sum(edge.latency_s for _, _, edge in tree)
    narrowest = min(edge.bytes_per_s for _, _, edge in tree)
    expected_s = 0.0
    if str(way.name) == "compress":
        expected_s = exchange.sent_bytes / (2 * len(tree)) / narrowest + latency_s
    if not same(exchange.gradients_s, expected_s) or exchange.parameters_s:
        yield "mixed.exchange.gradients_s", f"and parameters_s aren't {expected_s:.9g} and 0"


def late_messages(plan: MixedPlan, exchange: ExchangeSection, tree: list[Edge], edges: list[Edge]) -> Failures:
    """Check what a way of local steps sends, how long each meeting takes, and what of that a step waits for."""
    way = plan.mixed.way
    if way is None or str(way.name) not in STEPS_OF_THEIR_OWN:
        return
    steps, layers = way.settings.get("local_steps", 1.0), plan.inputs.model.entry.layers
    latency_s, narrowest = sum(each.latency_s for _, _, each in tree), min(each.bytes_per_s for _, _, each in tree)
    gradient_bytes, a_step = reduce_bytes(plan), exchange.sent_bytes * steps / 2
    if str(way.name) == "noloco":
        count = a_step / 4 / (len(plan.mixed.chains) // 2)
        pair_s = max(count * 4 / each.bytes_per_s + each.latency_s for _, _, each in edges)
        expected, most_s = {"bytes_a_value": 4.0, "pair_s": pair_s}, pair_s / steps
    elif str(way.name) == "co2":
        count = a_step / gradient_bytes / len(tree)
        sum_s = count * gradient_bytes / narrowest + 2 * latency_s
        expected, most_s = {"sum_s": sum_s}, sum_s / steps
    else:
        count, fragments = a_step * 2 / len(tree), min(-(-layers // 3), steps)
        delay = min(5.0, steps // fragments)
        fragment_s = count / 2 / fragments / narrowest + 2 * latency_s
        expected = {
            "fragments": fragments,
            "delay_steps": delay,
            "bytes_a_value": 0.5,
            "fragment_s": fragment_s,
            "bytes_below_synchronous": steps * gradient_bytes * 2,
            "peak_rate_below_synchronous": fragments * max(delay, 1.0) * gradient_bytes * 2,
        }
        most_s = fragment_s * fragments / steps
    for field, value in expected.items():
        if not same(way.settings.get(field, -1.0), value):
            yield f"mixed.way.settings.{field}", f"is {way.settings.get(field)}; the links make it {value:.9g}"
    size = model_size(plan.inputs.model.entry, sequence_length=plan.inputs.job.sequence_length)
    if size is not None and not size.parameters * (1 - 1e-6) <= count <= size.parameters * (1 + BESIDE_MATRICES):
        yield "mixed.exchange.sent_bytes", f"are of {count:.0f} parameters; the matrices have {size.parameters}"
    for number, chain in enumerate(plan.mixed.chains):
        if chain.exposed_s > most_s * 1.000001 or (str(way.name) == "noloco" and not same(chain.exposed_s, most_s)):
            yield f"mixed.chains.{number}.exposed_s", f"is {chain.exposed_s}; a step's share of it is {most_s:.9g}"


def _sent(plan: MixedPlan, ways: dict[frozenset[int], Way]) -> Failures:
    """Check the bytes on all links in a step, both ways, and what they cost."""
    job = plan.inputs.job
    sent = 0.0 if plan.mixed.exchange is None else float(plan.mixed.exchange.sent_bytes)
    usd = sent / 1e9 * max((way.usd_per_gigabyte for way in ways.values()), default=0.0)
    for chain in plan.mixed.chains:
        each = 2 * ACTIVATION_BYTES * plan.inputs.model.entry.hidden * job.sequence_length * chain.sequences
        for pair in pairwise(chain.islands):
            sent += each
            usd += each / 1e9 * ways[frozenset(pair)].usd_per_gigabyte
    if not same(plan.predicted.link_bytes, sent):
        yield "predicted.link_bytes", f"is {plan.predicted.link_bytes}; the links pass {sent:.0f}"
    each_usd = usd / (job.global_batch * job.sequence_length) * 1e6
    if not same(plan.predicted.link_usd_per_million_tokens, each_usd):
        told_usd = plan.predicted.link_usd_per_million_tokens
        yield "predicted.link_usd_per_million_tokens", f"is {told_usd}; the links' prices make it {each_usd:.9g}"
