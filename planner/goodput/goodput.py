"""The best way to save a plan's state, and how much of the time is then of use."""

from dataclasses import dataclass

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.planner.goodput.closed_form import Interval, best_interval
from meshwright.planner.goodput.levels import Scheme, schemes
from meshwright.planner.goodput.machine import Failures, Saving, saving_of
from meshwright.planner.goodput.simulation import Spread, simulated
from meshwright.planner.plan_schema import Plan

# A run is simulated from failure to failure.
MOST_FAILURES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A way of saving, and how often it saves at the best."""

    scheme: Scheme
    interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """The answer: all ways of saving, best first; and what simulated runs of the best one come to."""

    saving: Saving
    failures: Failures
    options: tuple[Option, ...]
    spread: Spread
    duration_s: float

    @property
    def best(self) -> Option:
        """The way of saving with the most of use."""
        return self.options[0]

    @property
    def mtbf_s(self) -> float:
        """Mean time between failures of all devices of the plan."""
        return self.failures.device_mtbf_s / self.saving.devices


def goodput(
    plan: Plan,
    failures: Failures,
    *,
    host_bytes_per_s: float | None = None,
    storage_bytes_per_s: float | None = None,
    duration_s: float = 30 * 86_400.0,
    runs: int = 1000,
    seed: int = 0,
) -> Goodput:
    """Find how often and where to save a plan's state.

    Args:
        plan: which trains.
        failures: how often devices fail, and what that takes.
        host_bytes_per_s: between a device and its host, if not as the catalog has it.
        storage_bytes_per_s: of all devices together, if not what Llama 3's storage has for as many.
        duration_s: of each simulated run.
        runs: how many are simulated.
        seed: of the simulation.

    Raises MissingData where the catalog lacks a bandwidth, Infeasible where failures leave no time for anything, and
    InputError where a run has too many of them.

    """
    saving = saving_of(plan, host_bytes_per_s=host_bytes_per_s, storage_bytes_per_s=storage_bytes_per_s)
    options: list[Option] = []
    for scheme in schemes(saving, failures):
        try:
            options.append(Option(scheme=scheme, interval=best_interval(scheme, saving.step_s)))
        except Infeasible as error:
            nothing = error
    if not options:
        raise nothing
    options.sort(key=lambda option: -option.interval.goodput)
    best = options[0]
    failed = duration_s * saving.devices / failures.device_mtbf_s
    if failed > MOST_FAILURES:
        raise InputError(
            f"is so long that a run has {failed:,.0f} failures",
            path="--duration",
            hint=f"give one that has at most {MOST_FAILURES:,}",
        )
    spread = simulated(best.scheme, best.interval, saving.step_s, duration_s=duration_s, runs=runs, seed=seed)
    return Goodput(saving=saving, failures=failures, options=tuple(options), spread=spread, duration_s=duration_s)
