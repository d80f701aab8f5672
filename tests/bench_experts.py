"""Expert placement against its bars, with the balancer that engines ship beside it: `make bench-experts`.

Each time is the median of three runs in one process, after a first that loads what is imported.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np
from eplb_baseline import eplb_global, eplb_hierarchical, largest_loads
from expert_instances import chain, loads

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner import place_experts
from meshwright.planner.experts import Dispatch, Placement, Routing
from meshwright.planner.experts.dispatch import dispatched
from meshwright.planner.experts.lower_bound import lower_bound

RUNS = 3
KINDS = (("lognormal", 0.6), ("zipf", 0.8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A row of the table. quality, bar: what is measured and what it may be at most; seconds likewise."""

    instance: str
    measure: str
    quality: float
    bar: float
    baseline: str
    seconds: float
    seconds_bar: float
    baseline_seconds: float

    @property
    def held(self) -> bool:
        """Whether both bars are."""
        return self.quality <= self.bar and self.seconds <= self.seconds_bar


def timed(place: Callable[[], Placement]) -> tuple[Placement, float]:
    """The answer, and the median seconds of RUNS."""
    place()
    seconds = []
    for _ in range(RUNS):
        begun = perf_counter()
        found = place()
        seconds.append(perf_counter() - begun)
    return found, median(seconds)


def balance(
    name: str, weights: FloatArray, *, slots: int, devices: int, bar: float, seconds: float, light_only: bool = False
) -> Line:
    """Balance of one instance. light_only: only layers whose heaviest expert isn't above the mean of a device."""
    found, took = timed(lambda: place_experts(weights, devices=devices, slots=slots))
    begun = perf_counter()
    theirs = eplb_global(weights, slots=slots, devices=devices)
    their_seconds = perf_counter() - begun
    bound = lower_bound(weights, slots=slots, devices=devices)
    counted = np.ones(len(weights), bool)
    if light_only:
        counted = weights.max(axis=1) <= weights.sum(axis=1) / devices
    gaps = largest_loads(weights, theirs) / bound - 1
    return Line(
        instance=f"{name}, {slots} slots, {devices} devices ({counted.sum()} layers)",
        measure="mean gap to the bound, %",
        quality=100 * float(found.gap[counted].mean()) if counted.any() else 0.0,
        bar=bar,
        baseline=f"{100 * gaps[counted].mean():.3f}" if counted.any() else "-",
        seconds=took,
        seconds_bar=seconds,
        baseline_seconds=their_seconds,
    )


def balances() -> Iterator[Line]:
    """Balance, seeded."""
    for seed in (0, 1):
        for kind, spread in KINDS:
            deepseek = loads(58, 256, kind, spread=spread, seed=seed)
            name = f"DeepSeek-V3 58x256 {kind} {spread} seed {seed}"
            yield balance(name, deepseek, slots=288, devices=32, bar=0.1, seconds=0.3)
            yield balance(name, deepseek, slots=288, devices=72, bar=0.3, seconds=2)
            yield balance(name, deepseek, slots=320, devices=64, bar=0.3, seconds=2)
        skewed = loads(58, 256, "dirichlet", spread=0.3, seed=seed)
        name = f"DeepSeek-V3 58x256 dirichlet 0.3 seed {seed}"
        yield balance(name, skewed, slots=288, devices=72, bar=0.3, seconds=2)
    for kind, spread in (("lognormal", 0.6), ("dirichlet", 5.0)):
        qwen = loads(94, 128, kind, spread=spread)
        for devices in (8, 16, 32, 64):
            name = f"Qwen3 94x128 {kind} {spread}"
            yield balance(name, qwen, slots=128, devices=devices, bar=0.1, seconds=0.2, light_only=True)


def affinities() -> Iterator[Line]:
    """Mixtral, proven."""
    for strength in (0.4, 0.6):
        counts, moves = chain(32, 8, strength=strength)
        for devices, seconds in ((2, 0.1), (4, 1.5), (8, 0.1)):
            found, took = timed(
                lambda c=counts, m=moves, g=devices: place_experts(c, devices=g, transitions=m, objective="traffic")
            )
            yield Line(
                instance=f"Mixtral 32x8, affinity {strength}, {devices} devices: {found.cross_device:.1%} cross",
                measure="0 where proven optimal",
                quality=0.0 if found.status == "optimal" else 1.0,
                bar=0.0,
                baseline=f"{crossing(counts, moves, np.arange(8).reshape(1, devices, -1).repeat(32, 0), 1):.1%} cross",
                seconds=took,
                seconds_bar=seconds,
                baseline_seconds=0.0,
            )


def crossing(counts: FloatArray, moves: FloatArray, by_device: IntArray, nodes: int) -> float:
    """Tokens that leave their node, or their device where there is one node."""
    found = dispatched(Routing(loads=counts, transitions=moves), by_device, nodes=nodes, rule=Dispatch.EQUAL_SPLIT)
    fraction = found.cross_node if nodes > 1 else found.cross_device
    return 0.0 if fraction is None else fraction


def nodes() -> Iterator[Line]:
    """DeepSeek-V3 on nodes of 8, with as many planted domains."""
    for count, slots in ((4, 288), (8, 320)):
        for seed in (0, 1):
            counts, moves = chain(58, 256, domains=count, seed=seed)
            devices = 8 * count
            found, took = timed(
                lambda c=counts, m=moves, g=devices, n=count, p=slots: place_experts(
                    c, devices=g, nodes=n, slots=p, transitions=m
                )
            )
            begun = perf_counter()
            theirs = (
                eplb_hierarchical(counts, slots=slots, devices=devices, nodes=count, groups=8),
                eplb_global(counts, slots=slots, devices=devices),
            )
            their_seconds = (perf_counter() - begun) / 2
            theirs_cross = [crossing(counts, moves, placed, count) for placed in theirs]
            heaviest = [largest_loads(counts, placed) * devices / counts.sum(axis=1) for placed in theirs]
            name = f"DeepSeek-V3 58x256 chain seed {seed}, {slots} slots, {count} nodes of 8"
            yield Line(
                instance=name,
                measure="largest max/mean of a layer",
                quality=float(found.max_over_mean.max()),
                bar=1.015,
                baseline=" / ".join(f"{ratio.max():.3f}" for ratio in heaviest),
                seconds=took,
                seconds_bar=2,
                baseline_seconds=their_seconds,
            )
            yield Line(
                instance=f"{name}: {found.cross_node:.1%} cross",
                measure="crossings over EPLB's better one",
                quality=float(found.cross_node or 0.0) / min(theirs_cross),
                bar=0.7,
                baseline=" / ".join(f"{fraction:.1%}" for fraction in theirs_cross),
                seconds=took,
                seconds_bar=2,
                baseline_seconds=their_seconds,
            )


def others() -> Iterator[Line]:
    """Any other shape: how many layers have a larger load than EPLB's, where that puts no expert on a device twice."""
    draw = np.random.default_rng(7)
    worse, compared, ours_s, theirs_s = 0, 0, 0.0, 0.0
    for _ in range(120):
        experts, devices = int(draw.choice((8, 16, 60, 64, 128, 256))), int(draw.choice((2, 4, 8, 12, 16, 32, 64)))
        size = -(-experts // devices) + int(draw.integers(0, 3))
        if size > experts:
            continue
        kind, spread = (("lognormal", 0.6), ("zipf", 0.8), ("dirichlet", 1.0))[int(draw.integers(3))]
        weights = loads(4, experts, kind, spread=spread, seed=int(draw.integers(10**6)))
        begun = perf_counter()
        found = place_experts(weights, devices=devices, slots=size * devices)
        between = perf_counter()
        theirs = eplb_global(weights, slots=size * devices, devices=devices)
        ours_s, theirs_s = ours_s + between - begun, theirs_s + perf_counter() - between
        once = (np.diff(np.sort(theirs, axis=2), axis=2) != 0).all(axis=(1, 2))
        reached = largest_loads(weights, theirs) * devices / weights.sum(axis=1)
        worse += int((once & (found.max_over_mean > reached * (1 + 1e-9))).sum())
        compared += int(once.sum())
    yield Line(
        instance=f"{compared} layers of other shapes",
        measure="layers worse than EPLB's",
        quality=worse,
        bar=0,
        baseline="-",
        seconds=ours_s,
        seconds_bar=float("inf"),
        baseline_seconds=theirs_s,
    )


def main() -> None:
    """Print the table; exit 1 where a bar isn't held."""
    print("| instance | measure | here | bar | EPLB | s | bar, s | EPLB, s | held |")
    print("|---|---|---|---|---|---|---|---|---|")
    held = True
    for lines in (balances, affinities, nodes, others):
        for line in lines():
            held &= line.held
            print(
                f"| {line.instance} | {line.measure} | {line.quality:.4g} | {line.bar:g} | {line.baseline} | "
                f"{line.seconds:.3f} | {line.seconds_bar:g} | {line.baseline_seconds:.3f} | "
                f"{'yes' if line.held else 'NO'} |",
                flush=True,
            )
    sys.exit(not held)


if __name__ == "__main__":
    main()
