"""Fitting a host's rates to measured optimizer steps: the least mean of |log(predicted / measured)|.

That mean hardly counts runs that are far off: a machine's other habits aren't the law's to explain. Where two rows of
the law never change places, only the slower can be told, and the other's rate comes out as a bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import FloatArray
from meshwright.planner.offload.host import Host, UpdateRates
from meshwright.planner.offload.optimizer_law import OptimizerWork, Shares, overlapped_s, plain_s
from meshwright.planner.offload.runs import Run

# Parameters a second, bytes a second through a node's memory, bytes a second each way of a link.
LOWEST, HIGHEST = np.log([3e8, 3e10, 3e9]), np.log([3e10, 3e12, 5e11])
FEWEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RateFit:
    """Rates of one machine. runs: that they are fitted to; median_error: of those, |predicted / measured - 1|."""

    machine: str
    rates: UpdateRates
    runs: int
    median_error: float


def predicted_s(runs: Sequence[Run], rates: UpdateRates) -> FloatArray:
    """Give the seconds of each run's step by the law, [runs]."""
    return np.array([_predicted_s(run, rates) for run in runs])


def _predicted_s(run: Run, rates: UpdateRates) -> float:
    host = Host(ranks=run.ranks, memory_bytes=0.0, rates=rates, copy_bytes_per_s=rates.link_bytes_per_s)
    shares = Shares(cpu=run.cpu, streamed=run.streamed, resident=0.0)
    law = overlapped_s if run.overlapped else plain_s
    return float(law(OptimizerWork(parameters=run.parameters, device_s=0.0), host, shares))


def fit_rates(runs: Sequence[Run]) -> tuple[RateFit, ...]:
    """Fit each machine of some runs. Raises InputError where one has too few of them."""
    machines = sorted({run.machine for run in runs})
    return tuple(_fit_machine(machine, [run for run in runs if run.machine == machine]) for machine in machines)


def errors(runs: Sequence[Run], fits: Sequence[RateFit]) -> FloatArray:
    """Give |predicted / measured - 1| of each run by the rates of its machine, [runs]."""
    rates = {fit.machine: fit.rates for fit in fits}
    ratios = [_predicted_s(run, rates[run.machine]) / run.step_s for run in runs]
    return np.asarray(np.abs(np.array(ratios) - 1))


def _fit_machine(machine: str, runs: Sequence[Run]) -> RateFit:
    from scipy.optimize import differential_evolution  # noqa: PLC0415 - heavy, and only a fit needs it

    if len(runs) < FEWEST:
        named = f" of machine {machine}" if machine else ""
        raise InputError(f"{len(runs)} runs{named} can't tell three rates", hint=f"give {FEWEST} at least")
    columns = _Columns.of(runs)
    found = differential_evolution(
        columns.loss, list(zip(LOWEST, HIGHEST, strict=True)), rng=np.random.default_rng(1), tol=1e-8, maxiter=300
    )
    update, bus, link = map(float, np.exp(found.x))
    rates = UpdateRates(update_per_s=update, bus_bytes_per_s=bus, link_bytes_per_s=link)
    ratios = predicted_s(runs, rates) / np.array([run.step_s for run in runs])
    return RateFit(machine=machine, rates=rates, runs=len(runs), median_error=float(np.median(np.abs(ratios - 1))))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """The runs that share one number of ranks on a node and one law, as the law takes many at once."""

    groups: tuple[tuple[int, bool, OptimizerWork, Shares, FloatArray], ...]
    runs: int

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "_Columns":
        groups = []
        for ranks, overlapped in sorted({(run.ranks, run.overlapped) for run in runs}):
            own = [run for run in runs if (run.ranks, run.overlapped) == (ranks, overlapped)]
            # The law is proportional to the parameters, so that a step over them is what it gives for one.
            zero = np.zeros(len(own))
            shares = Shares(
                cpu=np.array([run.cpu for run in own]), streamed=np.array([run.streamed for run in own]), resident=zero
            )
            each_s = np.array([run.step_s / run.parameters for run in own])
            groups.append((ranks, overlapped, OptimizerWork(parameters=1.0, device_s=0.0), shares, each_s))
        return cls(groups=tuple(groups), runs=len(runs))

    def loss(self, logs: FloatArray) -> float:
        update, bus, link = np.exp(logs)
        rates = UpdateRates(update_per_s=update, bus_bytes_per_s=bus, link_bytes_per_s=link)
        total = 0.0
        for ranks, overlapped, work, shares, each_s in self.groups:
            host = Host(ranks=ranks, memory_bytes=0.0, rates=rates, copy_bytes_per_s=link)
            seconds = (overlapped_s if overlapped else plain_s)(work, host, shares)
            total += float(np.abs(np.log(seconds / each_s)).sum())
        return total / self.runs
