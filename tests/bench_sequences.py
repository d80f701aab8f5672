"""Splits of a step's sequences against their bars, with other systems' algorithms beside them: `make bench-sequences`.

    python tests/bench_sequences.py [--seeds N] [--flexsp SECONDS]

Llama 3.1 8B under ZeRO-1, with full recomputation or without, on 32 to 12,288 H100s: six distributions of lengths
each. The gap is to the bound of `--certify`; seconds are of the process, of one call with its tables made before.
`--flexsp` also solves FlexSP's MILPs, for as long at most, and Megatron-Core's split, both in lockstep (ZeRO-3).
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from time import process_time

import numpy as np
from rich.console import Console
from rich.table import Table
from sequence_baselines import flexsp_s, megatron_core_s
from sequence_lengths import LONG_TAILED, NAMES, drawn

from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner import SequenceScatterer
from meshwright.planner.sequences.batch import batch_of
from meshwright.planner.sequences.certificate import certified_bound_s

LONGEST = 393_216
FULL = 0.8
# Devices, sequences, and the bars: median and 90 % quantile of the gap, 95 % quantile of the seconds.
SIZES = (
    ((32, 64, 128, 256), 512, 0.01, 0.03, 0.05),
    ((1024,), 2048, 0.02, 0.04, 0.3),
    ((12288,), 8192, 0.05, 0.05, 2.0),
)
FULL_GAP = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One batch: what was found."""

    name: str
    fill: float
    gap: float
    seconds: float
    speedup: float


def scatterer(devices: int, recompute: Recompute, *, zero_stage: int = 1) -> SequenceScatterer:
    """Make the one of the benchmark."""
    layout = Layout(data_parallel=devices, zero_stage=zero_stage, zero_shard=devices, recompute=recompute)
    return SequenceScatterer.of("llama-3.1-8b", f"dgx-h100:{devices}", layout)


def runs(devices: int, count: int, seeds: int) -> Iterator[Run]:
    """Give what is found for each distribution and seed."""
    for recompute in (Recompute.NONE, Recompute.FULL):
        splits = scatterer(devices, recompute)
        most = int(splits.costs.most_tokens.max())
        splits([1000] * 16)
        for name in NAMES:
            for seed in range(seeds):
                lengths = drawn(name, count, seed=seed, longest=min(LONGEST, most))
                begun = process_time()
                found = splits(lengths)
                seconds = process_time() - begun
                batch = batch_of(splits.costs, np.sort(lengths)[::-1])
                bound_s = certified_bound_s(splits.costs, batch, found.step_time_s, free=True)
                yield Run(
                    name=name,
                    fill=float(lengths.sum()) / most,
                    gap=found.step_time_s / bound_s - 1,
                    seconds=seconds,
                    speedup=found.speedup,
                )


def compared(seeds: int, limit_s: float) -> Iterator[tuple[str, float, float]]:
    """Give how many times as long as ours Megatron-Core's and FlexSP's splits take, on 32 devices."""
    splits = scatterer(32, Recompute.FULL, zero_stage=3)
    for name in NAMES:
        for seed in range(seeds):
            lengths = drawn(name, 256, seed=seed, longest=min(LONGEST, int(splits.costs.most_tokens.max())))
            ours_s = splits(lengths).step_time_s
            batch = batch_of(splits.costs, np.sort(lengths)[::-1])
            yield (
                name,
                megatron_core_s(splits.costs, batch) / ours_s,
                flexsp_s(splits.costs, batch, limit_s=limit_s) / ours_s,
            )


def add_bars(table: Table, label: str, found: list[Run], bars: tuple[float, float, float]) -> None:
    """Add a row of what was found, each figure with its bar."""
    if not found:
        return
    gaps, seconds = [run.gap for run in found], [run.seconds for run in found]
    tailed = [run.speedup for run in found if run.name in LONG_TAILED]
    table.add_row(
        label,
        str(len(found)),
        f"{np.median(gaps):.2%} ({bars[0]:.0%})",
        f"{np.quantile(gaps, 0.9):.2%}" + (f" ({bars[1]:.0%})" if bars[1] < 1 else ""),
        f"{np.median(seconds) * 1e3:.0f} ms",
        f"{np.quantile(seconds, 0.95) * 1e3:.0f} ms ({bars[2] * 1e3:.0f})",
        f"{np.median(tailed):.2f} x" if tailed else "",
        f"{min(run.speedup for run in found):.2f} x",
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--flexsp", type=float, default=0.0)
    parser.add_argument("--sizes", type=int, default=len(SIZES))
    chosen = parser.parse_args()
    table = Table("batch", "runs", "median gap", "p90 gap", "median", "p95", "faster (long tails)", "least faster")
    for devices, count, *bars in SIZES[: chosen.sizes]:
        found = [run for each in devices for run in runs(each, count, chosen.seeds)]
        own = (bars[0], bars[1], bars[2])
        label = f"{count} sequences, up to {devices[-1]} devices"
        add_bars(table, f"{label}, fill < {FULL}", [run for run in found if run.fill < FULL], own)
        full = [run for run in found if run.fill >= FULL]
        add_bars(table, f"{label}, fill >= {FULL}", full, (FULL_GAP, 1.0, bars[2]))
        Console(file=sys.stderr).print(f"{label}: done")
    console = Console(width=160)
    console.print(table)
    if chosen.flexsp:
        others = Table("lengths", "Megatron-Core's over ours", f"FlexSP's at {chosen.flexsp:g} s over ours")
        for name, megatron, flexsp in compared(chosen.seeds, chosen.flexsp):
            others.add_row(name, f"{megatron:.3f}", f"{flexsp:.3f}")
        console.print(others)


if __name__ == "__main__":
    main()
