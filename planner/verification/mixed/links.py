"""What crosses links: each is there, and messages, the exchange of gradients and its price are what they pass."""

from itertools import pairwise

from meshwright.planner.mixed.plan_schema import ChainSection, MixedPlan
from meshwright.planner.verification.check import Failures, Found, same
from meshwright.planner.verification.mixed.exchange import exchange_in_full
from meshwright.planner.verification.mixed.joins import Joins, edges_of, joins_of, widest_tree
from meshwright.planner.verification.mixed.late_exchange import late_exchange

# Of an activation on the wire.
ACTIVATION_BYTES = 2


def links(plan: MixedPlan) -> Found:
    """Check what crosses links: that they are there, each message's seconds, all bytes of a step, and their price."""
    return f"{len(plan.inputs.cluster.links)} links join what sends", _links(plan)


def _links(plan: MixedPlan) -> Failures:
    joins, names = joins_of(plan), [island.name for island in plan.mixed.islands]
    apart = [
        (f"mixed.chains.{number}.islands", f"no link joins {names[one]} and {names[other]}")
        for number, chain in enumerate(plan.mixed.chains)
        for one, other in pairwise(chain.islands)
        if frozenset((one, other)) not in joins
    ]
    if apart:
        yield from apart
        return
    for number, chain in enumerate(plan.mixed.chains):
        yield from _messages(plan, chain, joins, f"mixed.chains.{number}")
    exchange, chains = plan.mixed.exchange, plan.mixed.chains
    if (exchange is None) != (len(chains) == 1):
        yield "mixed.exchange", "is there where several chains train replicas, and only there"
        return
    if exchange is not None:
        tree = widest_tree(chains, joins)
        if len(tree) != len(chains) - 1:
            yield "mixed.exchange", "no links join all chains"
            return
        if plan.mixed.way is None:
            yield from exchange_in_full(plan, exchange, tree)
        else:
            yield from late_exchange(plan, exchange, plan.mixed.way, tree, edges_of(chains, joins))
    yield from _sent(plan, joins)


def _messages(plan: MixedPlan, chain: ChainSection, joins: Joins, where: str) -> Failures:
    """Check one message over each link of a chain: the activations of a micro-batch of all replicas."""
    layout, pairs = chain.layouts[0], list(pairwise(chain.islands))
    if len(chain.crossing_s) != len(pairs):
        yield f"{where}.crossing_s", f"are {len(chain.crossing_s)}, over {len(pairs)} links"
        return
    if chain.buffered and not plan.inputs.stack.entry.overlap_pipeline:
        yield f"{where}.buffered", f"is true; {plan.inputs.stack.entry.name} sends nothing beside passes"
    tokens = plan.inputs.job.sequence_length * layout.data_parallel * layout.micro_batch
    for position, pair in enumerate(pairs):
        join = joins[frozenset(pair)]
        seconds = ACTIVATION_BYTES * plan.inputs.model.entry.hidden * tokens / join.bytes_per_s + join.latency_s
        if not same(chain.crossing_s[position], seconds):
            told = chain.crossing_s[position]
            yield f"{where}.crossing_s.{position}", f"is {told}; the activations of {tokens} tokens take {seconds:.9g}"


def _sent(plan: MixedPlan, joins: Joins) -> Failures:
    """Check the bytes on all links in a step, both ways, and what they cost."""
    job = plan.inputs.job
    sent = 0.0 if plan.mixed.exchange is None else float(plan.mixed.exchange.sent_bytes)
    usd = sent / 1e9 * max((join.usd_per_gigabyte for join in joins.values()), default=0.0)
    for chain in plan.mixed.chains:
        each = 2 * ACTIVATION_BYTES * plan.inputs.model.entry.hidden * job.sequence_length * chain.sequences
        for pair in pairwise(chain.islands):
            sent += each
            usd += each / 1e9 * joins[frozenset(pair)].usd_per_gigabyte
    if not same(plan.predicted.link_bytes, sent):
        yield "predicted.link_bytes", f"is {plan.predicted.link_bytes}; the links pass {sent:.0f}"
    each_usd = usd / (job.global_batch * job.sequence_length) * 1e6
    if not same(plan.predicted.link_usd_per_million_tokens, each_usd):
        told_usd = plan.predicted.link_usd_per_million_tokens
        yield "predicted.link_usd_per_million_tokens", f"is {told_usd}; the links' prices make it {each_usd:.9g}"
