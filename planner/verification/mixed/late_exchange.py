"""What ways of training send that send less, or less often, than gradients in full: their messages and their waits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from meshwright.planner.mixed.plan_schema import ExchangeSection, MixedPlan, WaySection
from meshwright.planner.verification.check import ROUNDING, Failures, same
from meshwright.planner.verification.mixed.exchange import of_all_parameters, reduce_bytes
from meshwright.planner.verification.mixed.joins import Edge


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a way of local steps sends: bytes between two meetings, over the tree and over all edges.

    gradient_bytes: of a gradient on the wire; chains, layers: how many there are.
    """

    total_bytes: float
    steps: float
    tree: Sequence[Edge]
    edges: Sequence[Edge]
    gradient_bytes: int
    chains: int
    layers: int

    @property
    def latency_s(self) -> float:
        """The seconds of all messages of the tree, one after another, but for their bytes."""
        return sum(edge.join.latency_s for edge in self.tree)

    @property
    def narrowest(self) -> float:
        """The bytes a second of the tree's narrowest edge."""
        return min(edge.join.bytes_per_s for edge in self.tree)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """How many parameters a meeting is of, what the way's settings say of it, and what a step waits for of it."""

    parameters: float
    settings: Mapping[str, float]
    waits_s: float


def late_exchange(
    plan: MixedPlan, exchange: ExchangeSection, way: WaySection, tree: Sequence[Edge], edges: Sequence[Edge]
) -> Failures:
    """Check the exchange of a way that changes the mathematics, and its meetings where it has steps of its own."""
    if str(exchange.across) == "copies":
        yield from _seconds(exchange, way, tree)
    else:
        yield "mixed.exchange.across", "is copies of ways that change the mathematics"
    if str(way.name) in MEETINGS:
        yield from _meetings(plan, exchange, way, tree, edges)


def _seconds(exchange: ExchangeSection, way: WaySection, tree: Sequence[Edge]) -> Failures:
    expected_s = 0.0
    if str(way.name) == "compress":
        narrowest = min(edge.join.bytes_per_s for edge in tree)
        latency_s = sum(edge.join.latency_s for edge in tree)
        expected_s = exchange.sent_bytes / (2 * len(tree)) / narrowest + 2 * latency_s
    if not same(exchange.gradients_s, expected_s) or exchange.parameters_s:
        yield "mixed.exchange.gradients_s", f"and parameters_s aren't {expected_s:.9g} and 0"


def _meetings(
    plan: MixedPlan, exchange: ExchangeSection, way: WaySection, tree: Sequence[Edge], edges: Sequence[Edge]
) -> Failures:
    """Check what a way of local steps sends, how long each meeting takes, and what of that a step waits for."""
    steps = way.settings.get("local_steps", 1.0)
    if not steps >= 1:
        yield "mixed.way.settings.local_steps", f"is {steps:g}, and islands meet after a step at least"
        return
    meeting = MEETINGS[str(way.name)](
        Sent(
            total_bytes=exchange.sent_bytes * steps,
            steps=steps,
            tree=tree,
            edges=edges,
            gradient_bytes=reduce_bytes(plan),
            chains=len(plan.mixed.chains),
            layers=plan.inputs.model.entry.layers,
        )
    )
    for field, value in meeting.settings.items():
        if not same(way.settings.get(field, -1.0), value):
            yield f"mixed.way.settings.{field}", f"is {way.settings.get(field)}; the links make it {value:.9g}"
    yield from of_all_parameters(plan, meeting.parameters)
    for number, chain in enumerate(plan.mixed.chains):
        waits_s, told_s = meeting.waits_s, chain.exposed_s
        # None of a meeting of pairs is hidden; others run beside the next steps, as far as these are long enough.
        if told_s > waits_s * (1 + ROUNDING) or (str(way.name) == "noloco" and not same(told_s, waits_s)):
            yield f"mixed.chains.{number}.exposed_s", f"is {told_s}; a step's share of it is {waits_s:.9g}"


def _of_pairs(sent: Sent) -> Meeting:
    """NoLoCo: pairs of chains send one another fp32 parameters (arXiv 2506.10911)."""
    parameters = sent.total_bytes / 2 / 4 / (sent.chains // 2)
    pair_s = max(parameters * 4 / edge.join.bytes_per_s + edge.join.latency_s for edge in sent.edges)
    return Meeting(
        parameters=parameters, settings={"bytes_a_value": 4.0, "pair_s": pair_s}, waits_s=pair_s / sent.steps
    )


def _of_sums(sent: Sent) -> Meeting:
    """CO2: all sum up what they learned, beside the next steps (arXiv 2401.16265)."""
    parameters = sent.total_bytes / 2 / sent.gradient_bytes / len(sent.tree)
    sum_s = parameters * sent.gradient_bytes / sent.narrowest + 2 * sent.latency_s
    return Meeting(parameters=parameters, settings={"sum_s": sum_s}, waits_s=sum_s / sent.steps)


def _of_fragments(sent: Sent) -> Meeting:
    """Streaming DiLoCo: a few layers at a time, in 4 bits (arXiv 2501.18512)."""
    parameters = sent.total_bytes / len(sent.tree)
    fragments = min(-(-sent.layers // 3), sent.steps)
    delay = min(5.0, sent.steps // fragments)
    fragment_s = parameters / 2 / fragments / sent.narrowest + 2 * sent.latency_s
    settings = {
        "fragments": fragments,
        "delay_steps": delay,
        "bytes_a_value": 0.5,
        "fragment_s": fragment_s,
        "bytes_below_synchronous": sent.steps * sent.gradient_bytes * 2,
        "peak_rate_below_synchronous": fragments * max(delay, 1.0) * sent.gradient_bytes * 2,
    }
    return Meeting(parameters=parameters, settings=settings, waits_s=fragment_s * fragments / sent.steps)


MEETINGS: Mapping[str, Callable[[Sent], Meeting]] = {
    "noloco": _of_pairs,
    "co2": _of_sums,
    "diloco": _of_fragments,
}
