"""The fewest devices on which a step takes a given time at most, proved by showing it of every smaller number tried.

Of n devices, from below:

    1  F / (n R) > t, with F the model's FLOP of a step and R a device's peak: no layout is fast enough
    2  else a search (search.py) in which nothing is of use whose lower bound is above t: most end without opening one
    3  the first n of which the fastest layout takes t at most is the answer, with that layout
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from meshwright.catalog.errors import Infeasible
from meshwright.costmodels.job import Job
from meshwright.costmodels.model_flop import model_flop
from meshwright.planner.layout.description import describe
from meshwright.planner.layout.objective import Objective
from meshwright.planner.layout.question import Question, SearchResult, Unfound, Watch
from meshwright.planner.layout.search import attempt, search


def fewest_devices(
    jobs: Iterable[Job], question: Question, *, target_s: float, watch: Watch | None = None
) -> SearchResult:
    """Find the first of the jobs, given from the fewest devices up, of which a step takes `target_s` at most.

    `jobs` may not be empty.

    Raises Infeasible where not even the last does, and SolverFailed where a predicted time is no number.
    """
    capped = replace(question, objective=Objective.TIME, slowest_s=target_s)
    tried: list[Unfound] = []
    for job in jobs:
        if model_flop(job) > target_s * job.cluster.devices * job.cluster.device.peak(job.precision):
            continue
        found = attempt([job], capped, watch=watch)
        if isinstance(found, SearchResult):
            return _with(found, tried, devices=job.cluster.devices)
        tried.append(found)
    raise _too_slow(job, question, target_s=target_s, tried=tried)


def _with(found: SearchResult, tried: Sequence[Unfound], *, devices: int) -> SearchResult:
    """Give a result with what was looked at of fewer devices."""
    return replace(
        found,
        candidates=found.candidates + sum(one.candidates for one in tried),
        feasible=found.feasible + sum(one.feasible for one in tried),
        rejected=sum((Counter(one.rejected) for one in tried), Counter(found.rejected)),
        value=float(devices),
        lower_bound=float(devices),
    )


def _too_slow(job: Job, question: Question, *, target_s: float, tried: Sequence[Unfound]) -> Infeasible:
    """Say what all devices could do. Raises Infeasible where nothing fits at all."""
    best = search([job], replace(question, objective=Objective.TIME, top=0)).best
    return Infeasible(
        f"no layout of {job.model.name} on {job.cluster.devices} devices of {job.cluster.name} or fewer takes "
        f"{target_s:.6g} s a step",
        rejected=sum((Counter(one.rejected) for one in tried), Counter()),
        nearest_miss=f"{describe(best.layout)} on {job.cluster.devices} devices takes {best.step_time_s:.6g} s",
        hint="allow more time, or give the cluster more devices",
    )
