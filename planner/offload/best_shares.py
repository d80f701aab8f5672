"""The optimizer's best shares, in whole subgroups, for what is decided of activations and parameters.

A step's seconds are convex in the shares, as the largest of linear rows are: the best of every twentieth number of
subgroups is near the best of all, which are tried around it; the best of every fifth where none of those fits. What
the host can't hold goes to its drives.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from meshwright.costmodels.layout import BoolArray
from meshwright.planner.offload.decision import Decision
from meshwright.planner.offload.memory_law import HOST_GRADIENT_BYTES, device_bytes, held_of
from meshwright.planner.offload.optimizer_law import STATE_BYTES, Shares, overlapped_s, plain_s
from meshwright.planner.offload.pass_law import loads_of, pass_times
from meshwright.planner.offload.problem import SUBGROUPS, Problem

STEPS = (20, 5)


@lru_cache(maxsize=4)
def all_shares(step: int) -> Shares:
    """Give all shares of whole subgroups, every `step`th number of them."""
    numbers = np.arange(0, SUBGROUPS + 1, step)
    cpu, streamed = np.meshgrid(numbers, numbers, indexing="ij")
    return _shares(cpu.ravel(), streamed.ravel())


def _shares(cpu: np.ndarray, streamed: np.ndarray) -> Shares:
    """Give the shares of so many subgroups, those that are possible."""
    possible: BoolArray = (cpu >= 0) & (streamed >= 0) & (cpu + streamed <= SUBGROUPS)
    cpu, streamed = cpu[possible], streamed[possible]
    return Shares(cpu=cpu / SUBGROUPS, streamed=streamed / SUBGROUPS, resident=(SUBGROUPS - cpu - streamed) / SUBGROUPS)


def _near(shares: Shares) -> Shares:
    steps = np.arange(-STEPS[0], STEPS[0] + 1)
    cpu, streamed = np.meshgrid(steps, steps, indexing="ij")
    return _shares(
        cpu.ravel() + round(float(shares.cpu) * SUBGROUPS), streamed.ravel() + round(float(shares.streamed) * SUBGROUPS)
    )


def with_best_shares(problem: Problem, decision: Decision, candidates: Shares | None = None) -> Decision | None:
    """Give the decision with the shares of the fastest step that fits; None where none does.

    Args:
        problem: the problem.
        decision: whose shares are replaced.
        candidates: arrays of shares to choose from, by default all of whole subgroups; what they have on drives is
            there even if the host could hold it.

    """
    if candidates is not None:
        return _with_best_of(problem, decision, candidates)
    for step in STEPS:
        found = _with_best_of(problem, decision, all_shares(step))
        if found is not None:
            return _with_best_of(problem, decision, _near(found.shares))
    return None


def _with_best_of(problem: Problem, decision: Decision, shares: Shares) -> Decision | None:
    cpu, streamed, resident = map(np.asarray, (shares.cpu, shares.streamed, shares.resident))
    held, parameters, host = held_of(problem, decision), problem.optimizer.parameters, problem.host
    state = max(STATE_BYTES * parameters, 1.0)
    on_host = state * (cpu + streamed) + HOST_GRADIENT_BYTES * parameters * cpu + held.left
    nvme = np.maximum(np.clip((on_host - host.memory_bytes) / state, 0.0, None), shares.nvme)
    fits = (nvme <= cpu) & (nvme * state <= host.nvme_bytes)
    fits &= device_bytes(problem.memory, held, cpu=cpu, resident=resident, streams=streamed > 0) <= problem.memory.limit
    if not fits.any():
        return None
    cpu, streamed, resident, nvme = cpu[fits], streamed[fits], resident[fits], nvme[fits]
    tried = Shares(cpu=cpu, streamed=streamed, resident=resident, nvme=nvme)
    law = overlapped_s if decision.overlapped else plain_s
    times = pass_times(problem, loads_of(problem, decision))
    on_grid, back = np.unique(cpu, return_inverse=True)
    seconds = problem.passes * problem.stretch * times.pass_s(on_grid)[back]
    seconds = seconds + law(problem.optimizer, host, tried)
    best = int(np.argmin(seconds))
    chosen = Shares(
        cpu=float(cpu[best]), streamed=float(streamed[best]), resident=float(resident[best]), nvme=float(nvme[best])
    )
    return replace(decision, shares=chosen)
