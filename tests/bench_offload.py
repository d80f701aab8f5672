"""Offload splits against their bars and against systems without a plan: `make bench-offload`."""

import sys
from pathlib import Path
from time import process_time

import numpy as np
from offload_jobs import FILES, JOBS

from meshwright.planner.offload import OffloadPlan
from meshwright.planner.offload.linear_program import relaxed
from meshwright.planner.offload.rate_fit import errors, fit_rates
from meshwright.planner.offload.runs import read_runs
from meshwright.planner.offload.simulation import simulated

FITTED = ("7", "20")
MEDIAN_BAR, GAP_BAR, SIMULATION_BAR, LP_BAR_S = 0.10, 0.01, 0.03, 0.2


def lp_seconds(found: OffloadPlan) -> float:
    """The processor seconds of the linear program, the least of three: others may share the machine."""
    took = []
    for _ in range(3):
        begun = process_time()
        relaxed(found.problem)
        took.append(process_time() - begun)
    return min(took)


def measured_steps(file: Path) -> bool:
    """The table of the law against published steps; whether its bar holds."""
    runs = read_runs(file)
    fits = fit_rates([run for run in runs if run.size in FITTED])
    found = errors(runs, fits)
    print(f"{'size':>6} {'machine':<10} {'runs':>5} {'median error':>13}")
    for size, machine in sorted({(run.size, run.machine) for run in runs}, key=lambda key: (int(key[0]), key[1])):
        own = [(run.size, run.machine) == (size, machine) for run in runs]
        fitted = "fitted" if size in FITTED else ""
        print(f"{size + 'B':>6} {machine:<10} {sum(own):>5} {np.median(found[own]):>13.1%} {fitted}")
    unseen = np.array([run.size not in FITTED for run in runs])
    print(
        f"all {np.median(found):.1%}, fitted {np.median(found[~unseen]):.1%}, others {np.median(found[unseen]):.1%}\n"
    )
    return bool(np.median(found) <= MEDIAN_BAR)


def split(found: OffloadPlan, name: str) -> bool:
    """A row of the table of jobs; whether its bars hold."""
    events = simulated(found.problem, found.chosen.decision)
    off = events.step_time_s / found.step_time_s - 1
    lp_s = lp_seconds(found)
    named = [None if one is None else one.step_time_s for one in found.baselines.values()]
    others = " ".join(f"{'-':>14}" if seconds is None else f"{seconds:>14.2f}" for seconds in named)
    shares = "/".join(f"{found.optimizer[share]:.2f}" for share in ("cpu", "streamed", "resident"))
    print(f"{name:<14} {found.step_time_s:>8.2f} {found.gap:>6.2%} {off:>+7.2%} {lp_s:>6.2f} {shares:>15} {others}")
    held = events.device_bytes <= found.problem.memory.limit * (1 + 1e-9)
    held &= events.host_bytes <= found.problem.host.memory_bytes * (1 + 1e-9)
    best = min((seconds for seconds in named if seconds is not None), default=float("inf"))
    quick = lp_s <= LP_BAR_S
    return bool(found.gap <= GAP_BAR and abs(off) <= SIMULATION_BAR and held and quick and found.step_time_s <= best)


def main() -> int:
    """Print both tables; 1 where a bar is missed."""
    held = [measured_steps(FILES / "deep_optimizer_states.csv")]
    columns = ("full_recompute", "zero_offload", "zero_infinity", "twin_flow", "fixed_stride")
    head = " ".join(f"{name:>14}" for name in columns)
    print(f"{'job':<14} {'step, s':>8} {'gap':>6} {'events':>7} {'LP, s':>6} {'c/f/g':>15} {head}")
    held += [split(job.plan(), job.name) for job in JOBS]
    print("all bars hold" if all(held) else "MISSED")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
