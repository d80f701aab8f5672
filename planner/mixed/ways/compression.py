"""Gradients that cross links in fewer bytes, with what making them costs: 1-bit Adam, top-k, levels by layer.

Of N gradients on n devices an island, with error feedback (what wasn't sent is added to the next gradient, 4 bytes kept
a parameter), read and written at b bytes/s a device:

    1-bit Adam   the sign of each momentum and one scale a layer: 1 / 8 byte    2 reads, 2 writes of 4 bytes, 1 / 8 byte
                 (arXiv 2102.02888, section 4; behind a warm-up in full)
    top-k        the largest share k, 4 bytes a value and 4 an index            a sampled threshold: 3 reads, 1 write
                 (arXiv 1712.01887, section 3)
    levels       b_l bits for layer l, by L-GreCo's knapsack (knapsack.py)      2 reads, 1 write, b_l / 8 bytes
                 (arXiv 2210.17357)

The one is taken whose exchange and making take least; islands hold copies of the optimizer's states.
"""

from collections.abc import Sequence

from meshwright.costmodels.island_links import Across, Edge, Exchange, exchange_of
from meshwright.costmodels.job import Job
from meshwright.costmodels.parameter_bytes import reduced_bytes
from meshwright.costmodels.parameters import embedding_parameters, layer_parameters, total_parameters
from meshwright.planner.mixed.ways.allowed import Allowed
from meshwright.planner.mixed.ways.knapsack import BITS, least_bits
from meshwright.planner.mixed.ways.way import Way

ERROR_BYTES = 4.0
VALUE_BYTES = INDEX_BYTES = 4.0
# Levels by layer err together as much as this many bits for all would.
AS_GOOD_AS_BITS = 4


def compressed(job: Job, parties: int, tree: Sequence[Edge], *, kept: float) -> Way:
    """Give the quickest compression; `kept` is the share of the gradients that top-k sends."""
    ways = [_one_bit(job, parties, tree), _top(job, parties, tree, kept=kept), _levels(job, parties, tree)]
    return min(ways, key=lambda way: way.exchange.gradients_s + way.exchange.fixed_s)


def _one_bit(job: Job, parties: int, tree: Sequence[Edge]) -> Way:
    exchange = _sent(job, parties, tree, sent_bytes=0.125, moved_bytes=4 * 4.0 + 0.125)
    return _way(
        exchange, {"bits": 1.0}, "1-bit Adam: signs and scales, errors fed back, behind a warm-up in full", "2102.02888"
    )


def _top(job: Job, parties: int, tree: Sequence[Edge], *, kept: float) -> Way:
    exchange = _sent(job, parties, tree, sent_bytes=kept * (VALUE_BYTES + INDEX_BYTES), moved_bytes=4 * 4.0)
    trades = f"top-k: only the largest {kept:.1%} of the gradients cross the links in a step, the rest later"
    return _way(exchange, {"kept": kept}, trades, "1712.01887")


def _levels(job: Job, parties: int, tree: Sequence[Edge]) -> Way:
    bits = layer_bits(job)
    sizes = layer_sizes(job)
    mean = sum(size * each for size, each in zip(sizes, bits, strict=True)) / sum(sizes)
    exchange = _sent(job, parties, tree, sent_bytes=mean / 8.0, moved_bytes=3 * 4.0 + mean / 8.0)
    trades = f"L-GreCo: {min(bits)} to {max(bits)} bits a gradient by layer, erring as {AS_GOOD_AS_BITS} for all do"
    return _way(exchange, {"mean_bits": mean, "least_bits": min(bits), "most_bits": max(bits)}, trades, "2210.17357")


def layer_sizes(job: Job) -> tuple[int, ...]:
    """Give the parameters of each layer, and of embedding and head together behind them."""
    layers = tuple(layer_parameters(job.model, layer).total for layer in job.model.layers)
    return (*layers, max(total_parameters(job.model) - sum(layers), embedding_parameters(job.model), 1))


def layer_bits(job: Job) -> tuple[int, ...]:
    """Give the bits of each layer's gradients that send least within the error of AS_GOOD_AS_BITS for all.

    A quantiser of b bits errs by 4^-b of a gradient's square. Gradients of embedding and head are taken to be sparse,
    of a tenth of the others' square.
    """
    sizes = layer_sizes(job)
    weights = [1.0] * (len(sizes) - 1) + [0.1]
    errors = [[weight * size * 4.0**-bits for bits in BITS] for weight, size in zip(weights, sizes, strict=True)]
    budget = sum(error[BITS.index(AS_GOOD_AS_BITS)] for error in errors)
    return least_bits(sizes, errors, budget)


def _sent(job: Job, parties: int, tree: Sequence[Edge], *, sent_bytes: float, moved_bytes: float) -> Exchange:
    """Give the exchange of gradients of so many bytes each, for which devices move so many bytes of memory each."""
    plain = exchange_of(job, parties, tree, Across.COPIES, gradient_share=min(sent_bytes / reduced_bytes(job), 1.0))
    device = job.cluster.device
    rate = device.calibration.streaming * device.memory_bandwidth_bytes_per_s * job.cluster.devices
    making_s = total_parameters(job.model) * moved_bytes / rate
    return Exchange(gradients_s=plain.gradients_s, parameters_s=0.0, sent_bytes=plain.sent_bytes, fixed_s=making_s)


def _way(exchange: Exchange, settings: dict[str, float], trades: str, paper: str) -> Way:
    return Way(
        name=Allowed.COMPRESS,
        exchange=exchange,
        state_bytes=ERROR_BYTES,
        settings=settings | {"making_s": exchange.fixed_s},
        trades=trades,
        source=f"arXiv {paper}",
    )
