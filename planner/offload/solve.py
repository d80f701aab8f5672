"""The decision for a problem: the linear program, rounded; and the smallest memory where nothing fits."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter

from meshwright.catalog.errors import Infeasible
from meshwright.planner.offload.baselines import baselines
from meshwright.planner.offload.evaluation import Evaluation, evaluated
from meshwright.planner.offload.linear_program import relaxed
from meshwright.planner.offload.memory_law import memory_of
from meshwright.planner.offload.problem import Problem
from meshwright.planner.offload.rounding import best_evaluated, rounded
from meshwright.planner.offload.uniform import leanest

# Steps of halving between no host memory and enough: 2^-12 of that is near enough.
HALVINGS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """The decision found, what nothing is faster than, and the seconds of finding that bound."""

    best: Evaluation
    lower_bound_s: float
    lp_s: float

    @property
    def gap(self) -> float:
        """By how much the decision is slower than the bound, relative."""
        return self.best.step_time_s / self.lower_bound_s - 1


def solve(problem: Problem, *, improve: bool = True) -> Solved:
    """Give the fastest decision found, with single classes and layers changed then if wanted.

    Raises Infeasible, with the smallest memory that would do.
    """
    import scipy.optimize  # noqa: F401, PLC0415 - slow to import, which isn't the program's time

    start = perf_counter()
    optimum = relaxed(problem)
    lp_s = perf_counter() - start
    if optimum is None:
        raise infeasible(problem)
    best = rounded(problem, optimum, others=_others(problem), improve=improve)
    if best is None:
        raise infeasible(problem)
    return Solved(best=best, lower_bound_s=min(optimum.step_time_s, best.step_time_s), lp_s=lp_s)


def _others(problem: Problem) -> Iterator[Evaluation]:
    """Give what systems without a plan do, with overlap and the best shares, and what takes the least memory."""
    lean = best_evaluated(problem, leanest(problem))
    if lean is not None:
        yield lean
    for one in baselines(problem).values():
        if one is not None:
            yield evaluated(problem, replace(one.decision, overlapped=True))
            other = best_evaluated(problem, replace(one.decision, overlapped=True, whole=False))
            if other is not None:
                yield other


def infeasible(problem: Problem) -> Infeasible:
    """Give the error that says how much memory would do, of the device or else of the host."""
    lean = leanest(problem)
    needed = memory_of(problem, lean).device
    limit = problem.memory.limit
    if needed > limit:
        least, most = (problem.memory.shown_bytes(value) for value in (needed, limit))
        return Infeasible(
            f"nothing fits in {gib(most)} of device memory, even with all that can leave it on the host",
            nearest_miss=f"everything that can leave offloaded takes {gib(least)}",
            hint=f'the smallest budget that would do is --memory-budget "{gib(least, up=True)}"; more ranks that '
            "share the parameters, or a smaller micro-batch, need less",
        )
    host = least_host_bytes(problem)
    ranks = problem.host.ranks
    return Infeasible(
        f"what doesn't fit on devices doesn't fit in {gib(ranks * problem.host.memory_bytes)} of host memory either",
        nearest_miss=f"a node's {ranks} ranks leave {gib(ranks * host)} to its host at least",
        hint=f'the smallest that would do is --host-memory "{gib(ranks * host, up=True)}"; more nodes, or --nvme, '
        "need less of it",
    )


def least_host_bytes(problem: Problem) -> float:
    """Give the least host memory of a rank for which a decision is found, where with enough of it one is."""
    most = memory_of(problem, leanest(problem)).host
    low, high = 0.0, most
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        host = replace(problem.host, memory_bytes=middle)
        within = replace(problem, host=host)
        optimum = relaxed(within)
        found = None if optimum is None else rounded(within, optimum, improve=False)
        low, high = (middle, high) if found is None else (low, middle)
    return high


def gib(size: float, *, up: bool = False) -> str:
    """Give a size in GiB with one decimal, rounded up where asked to."""
    tenths = size / 2**30 * 10
    shown = -int(-tenths // 1) if up else round(tenths)
    return f"{shown / 10:.1f} GiB"
