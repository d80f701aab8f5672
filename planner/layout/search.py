"""The search: best first by lower bounds, until none is left that could be better, so that the best is proved.

    1  branches    all at once, each with branch_bound_s; taken in the order of their bounds, BRANCHES at a time
    2  twigs       of those, each with twig_bound_s; the best TWIGS of all that wait are opened at a time
    3  leaves      of those, all of them: predict_memory, and predict_time of what fits
    4  front       the Pareto front of each mesh (front.py) of all leaves so far, and with it the bar
    5  order       by the objective, one layout a mesh (objective.py)

The bar is the step time above which a layout can no longer be of use: that of the last of the `top` + 1 best meshes, or
the slowest that the objective admits. Steps 2 to 4 repeat until every branch and every twig whose bound is below the
bar has been opened. What was never opened is slower than the bar, so that all that was asked for has been evaluated by
the very functions whose figures the plan reports; what was opened in which order decides nothing.

Decision variables are the columns of LayoutTable; the constraints are the rules of rules.py and the limit on memory.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Self

import numpy as np

from meshwright.catalog.errors import Infeasible, SolverFailed
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, IntArray, Layout, LayoutTable
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner.layout.bound import branch_bound_s, twig_bound_s
from meshwright.planner.layout.cuts import cut_problems
from meshwright.planner.layout.description import describe
from meshwright.planner.layout.front import Front, joined, mesh_numbers
from meshwright.planner.layout.least_recomputed import every_count, least_recomputed
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.objective import (
    SLOWER_BY_AT_MOST,
    Objective,
    bar_s,
    best_first,
    bound_value,
    rounded,
    values,
)
from meshwright.planner.layout.possible import possible_instead
from meshwright.planner.layout.rules import Columns
from meshwright.planner.layout.space import Space, space_of, taken
from meshwright.planner.stages.cut import Cut, best_cut

NO_MEMORY = "it needs more memory than the device offers"
SLOWER = "its lower bound is above the step times listed"
UNTRIED = "the time limit came first"
THREADS = min(4, os.cpu_count() or 1)
BRANCHES = 4096
TWIGS = 512
PARTS = 2
# Where no even cut fits, no uneven one takes this many times as long as the bound of the twigs.
BEYOND = 1000.0
# Bounds and predictions round differently; a bound this little above the bar is taken to be on it.
ROUNDING = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A layout that fits, with its step time and its peak memory as nvidia-smi counts it."""

    layout: Layout
    step_time_s: float
    peak_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What the search proved.

    alternatives: the best layouts of other meshes, best first.
    candidates = feasible + sum of rejected (see space.py for what a candidate is); feasible are those that were
    evaluated and fit, and SLOWER is the reason of those that needn't be.
    lower_bound: nothing that fits comes to less under the objective: seconds, device-seconds, or bytes (objective.py).
    value: what the best layout comes to.
    """

    best: Found
    alternatives: tuple[Found, ...]
    candidates: int
    feasible: int
    rejected: Mapping[str, int]
    value: float
    lower_bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfound:
    """What a search that found nothing looked at, counted as in SearchResult."""

    candidates: int
    feasible: int
    rejected: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a search is.

    devices: of the size that it is at. best: what the best layout so far comes to under the objective, None where there
    is none. bound: what no layout comes to less than, at this size. waiting: branches and twigs that may be better.
    """

    devices: int
    best: float | None
    bound: float
    waiting: int


Watch = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a search.

    memory_limit_bytes: what a device may use. top: how many alternatives are asked for. time_limit_s: when to stop, in
    seconds from the start; None for not before everything is proved. limits: what is asked of the layout itself.
    slower_by: for the memory, by how much a layout may be slower than the fastest. slowest_s: no slower step is of use.
    """

    objective: Objective
    memory_limit_bytes: int
    top: int
    time_limit_s: float | None = None
    limits: Limits = field(default_factory=Limits)
    slower_by: float = SLOWER_BY_AT_MOST
    slowest_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What some layouts came to: the front of those that fit, how many those are, and why the others are out."""

    front: Front | None = None
    feasible: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def with_(self, others: Sequence[Self]) -> Self:
        """Give what these and other layouts came to."""
        fronts = [seen.front for seen in (self, *others) if seen.front is not None]
        return replace(
            self,
            front=joined(fronts).reduced() if fronts else None,
            feasible=self.feasible + sum(seen.feasible for seen in others),
            rejected=sum((seen.rejected for seen in others), self.rejected),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """Twigs that haven't been opened, with their bounds."""

    twigs: Columns
    bound_s: FloatArray

    def __len__(self) -> int:
        return len(self.bound_s)

    def take(self, rows: IntArray | slice) -> Self:
        """Give some of them."""
        return replace(self, twigs=taken(self.twigs, rows), bound_s=self.bound_s[rows])

    def with_(self, other: Self) -> Self:
        """Give these and others."""
        twigs = {name: np.concatenate([column, other.twigs[name]]) for name, column in self.twigs.items()}
        return replace(self, twigs=twigs, bound_s=np.concatenate([self.bound_s, other.bound_s]))

    def best_first(self) -> Self:
        """Give them in the order of their bounds."""
        return self.take(np.argsort(self.bound_s, kind="stable"))


def search(jobs: Sequence[Job], question: Question, *, watch: Watch | None = None) -> SearchResult:
    """Find the best layout over one or more jobs, which differ in the number of devices only.

    `watch` is called between rounds.

    Raises Infeasible where no layout is legal or none fits, and SolverFailed where a predicted time is no number.
    """
    found = attempt(jobs, question, watch=watch)
    if isinstance(found, Unfound):
        raise _infeasible(space_of(jobs[0], question.limits), question, rejected=found.rejected)
    return found


def attempt(jobs: Sequence[Job], question: Question, *, watch: Watch | None = None) -> SearchResult | Unfound:
    """Do the same, but give what was looked at where nothing is found. Raises SolverFailed."""
    ends = None if question.time_limit_s is None else monotonic() + question.time_limit_s
    spaces = [space_of(job, question.limits) for job in jobs]
    seen, left = _Seen(), np.inf
    for space in spaces:
        seen, unopened_s = _explored(space, question, seen, ends=ends, watch=watch)
        if np.isfinite(unopened_s):
            left = min(left, bound_value(question.objective, unopened_s, devices=space.job.cluster.devices))
    candidates, rejected = sum(space.candidates for space in spaces), dict(+seen.rejected)
    ordered = None if seen.front is None else best_first(question.objective, seen.front, slower_by=question.slower_by)
    ordered = ordered and ordered.take(np.flatnonzero(ordered.step_time_s <= question.slowest_s))
    if not ordered:
        return Unfound(candidates=candidates, feasible=seen.feasible, rejected=rejected)
    chosen, value = _one_a_mesh(ordered, limit=question.top + 1), float(values(question.objective, ordered)[0])
    return SearchResult(
        best=chosen[0],
        alternatives=chosen[1:],
        candidates=candidates,
        feasible=seen.feasible,
        rejected=rejected,
        value=value,
        lower_bound=min(value, left),
    )


def _explored(
    space: Space, question: Question, seen: _Seen, *, ends: float | None, watch: Watch | None
) -> tuple[_Seen, float]:
    """Open what may be of use of one space; give what has been seen then, and the least bound of what is left of that.

    That is infinity, but where time ends.
    """
    job, branches = space.job, space.branches.rows
    seen = seen.with_([_Seen(rejected=Counter(space.branches.rejected))])
    if not len(space.branches):
        return seen, np.inf
    bound_s = branch_bound_s(job, space.table(branches))
    order = np.argsort(bound_s, kind="stable")
    reached, waiting = 0, _twigs(space, question, order[:0])[0]
    opened = waiting
    while True:
        bar = (1 + ROUNDING) * _bar_s(question, seen.front, devices=job.cluster.devices)
        fresh = order[reached : reached + BRANCHES]
        fresh = fresh[bound_s[fresh] <= bar]
        reached += len(fresh)
        more, rejected = _twigs(space, question, fresh)
        waiting = waiting.with_(more).best_first()
        useful = int(np.searchsorted(waiting.bound_s, bar, side="right"))
        rejected[SLOWER] = _below(space, waiting.take(slice(useful, None)))
        seen, waiting = seen.with_([_Seen(rejected=rejected)]), waiting.take(slice(useful))
        late = ends is not None and monotonic() > ends and seen.front is not None
        if late or not (len(fresh) or len(waiting)):
            break
        if watch is not None:
            least_s = min([*bound_s[order[reached : reached + 1]], *waiting.bound_s[:1]])
            watch(_progress(space, question, seen, least_s, waiting=len(order) - reached + len(waiting)))
        now = waiting.take(slice(TWIGS * (PARTS if seen.front is not None else 1)))
        parts = [now.take(slice(start, start + TWIGS)) for start in range(0, len(now), TWIGS)]
        waiting, opened = waiting.take(slice(len(now), None)), opened.with_(now)
        with ThreadPoolExecutor(max_workers=THREADS) as pool:
            seen = seen.with_(list(pool.map(lambda part: evaluated(space, part.twigs, question), parts)))
    unreached = order[reached:]
    left = int(space.below_branches(taken(branches, unreached)).sum()) + _below(space, waiting)
    least_s = min([*bound_s[unreached[:1]], *waiting.bound_s[:1]], default=np.inf)
    seen = seen.with_([_Seen(rejected=Counter({UNTRIED if late else SLOWER: left}))])
    seen, uncut_s = _cut(space, opened, question, seen, ends=ends, watch=watch)
    return seen, min(float(least_s), uncut_s) if late else uncut_s


def _cut(
    space: Space, twigs: _Waiting, question: Question, seen: _Seen, *, ends: float | None, watch: Watch | None
) -> tuple[_Seen, float]:
    """Cut layers unevenly where that may be of use; give what has been seen then, and the least bound of what is left.

    The bounds of twigs are bounds of their cuts too, so that what was never opened has none of use. Only what may be
    the best is cut, and runners-up aren't. Cuts are the fastest of their kind: there is none for the least memory.
    """
    job, limit, left_s = space.job, question.memory_limit_bytes, np.inf
    if question.objective is Objective.MEMORY:
        return seen, left_s
    first = replace(question, top=0)
    bar = (1 + ROUNDING) * _bar_s(first, seen.front, devices=job.cluster.devices)
    if not np.isfinite(bar):
        bar = BEYOND * float(np.max(twigs.bound_s, initial=0.0))
    table, limits = space.table(twigs.twigs), question.limits
    problems = cut_problems(job, table, memory_limit_bytes=limit, below_s=bar, limits=limits)
    for number, bound_s in enumerate(problems.bound_s):
        bar = min(bar, (1 + ROUNDING) * _bar_s(first, seen.front, devices=job.cluster.devices))
        if bound_s > bar:
            break
        if watch is not None:
            watch(_progress(space, question, seen, bound_s, waiting=len(problems) - number))
        if ends is not None and monotonic() > ends:
            return seen, min(left_s, float(bound_s))
        cut = best_cut(job, problems.layouts.row(number), memory_limit_bytes=limit, below_s=bar)
        if cut is not None:
            seen = seen.with_([_Seen(front=_front_of(cut))])
            left_s = left_s if cut.is_optimal else min(left_s, cut.bound_s)
    return seen, left_s


def _front_of(cut: Cut) -> Front:
    time_s, peak_bytes = rounded(np.array([[cut.step_time_s], [cut.peak_bytes]]))
    return Front(layouts=LayoutTable.of([cut.layout]), step_time_s=time_s, peak_bytes=peak_bytes)


def _bar_s(question: Question, front: Front | None, *, devices: int) -> float:
    bar = bar_s(question.objective, front, top=question.top, devices=devices, slower_by=question.slower_by)
    return min(bar, question.slowest_s)


def _progress(space: Space, question: Question, seen: _Seen, least_s: float, *, waiting: int) -> Progress:
    devices, best = space.job.cluster.devices, None
    if seen.front is not None:
        ordered = best_first(question.objective, seen.front, slower_by=question.slower_by)
        best = float(values(question.objective, ordered)[0])
    bound = bound_value(question.objective, float(least_s), devices=devices)
    return Progress(devices=devices, best=best, bound=bound if best is None else min(bound, best), waiting=waiting)


def _twigs(space: Space, question: Question, branches: IntArray) -> tuple[_Waiting, Counter[str]]:
    """Give the twigs of some branches that something may fit of, and why how many candidates of the others are out."""
    grown = space.twigs(taken(space.branches.rows, branches))
    twigs, rejected = grown.rows, Counter(grown.rejected)
    bound_s = np.zeros(0)
    if len(branches):
        bound_s = twig_bound_s(space.job, space.table(twigs), memory_limit_bytes=question.memory_limit_bytes)
    waiting, fits = _Waiting(twigs=twigs, bound_s=bound_s), np.isfinite(bound_s)
    rejected[NO_MEMORY] += _below(space, waiting.take(np.flatnonzero(~fits)))
    return waiting.take(np.flatnonzero(fits)), rejected


def _below(space: Space, waiting: _Waiting) -> int:
    return int(space.below_twigs(waiting.twigs).sum())


def evaluated(space: Space, twigs: Columns, question: Question) -> _Seen:
    """Evaluate all leaves of some twigs. The heavy numpy calls release the interpreter, so threads share the work."""
    leaves = space.leaves(twigs)
    layouts, leaf = space.table(leaves.rows), np.arange(len(leaves))
    if question.objective is Objective.MEMORY:
        layouts, leaf = every_count(space.job, layouts)
    else:
        layouts = least_recomputed(space.job, layouts, limit_bytes=question.memory_limit_bytes)
    peak = rounded(predict_memory(space.job, layouts).nvidia_smi_bytes)
    fits = peak <= question.memory_limit_bytes
    kept = layouts.take(fits)
    front = Front(layouts=kept, step_time_s=_times(space.job, kept), peak_bytes=peak[fits]) if len(kept) else None
    feasible = len(np.unique(leaf[fits]))
    return _Seen(
        front=front.reduced() if front else None,
        feasible=feasible,
        rejected=Counter(leaves.rejected) + Counter({NO_MEMORY: len(leaves) - feasible}),
    )


def _times(job: Job, layouts: LayoutTable) -> FloatArray:
    times = predict_time(job, layouts).step_time_s
    wrong = ~(np.isfinite(times) & (times > 0))
    if wrong.any():
        raise SolverFailed(
            f"the cost model gives no step time for {layouts.row(int(wrong.argmax()))}",
            hint="please report it with the model and the cluster",
        )
    return rounded(times)


def _one_a_mesh(ordered: Front, *, limit: int) -> tuple[Found, ...]:
    first = np.sort(np.unique(mesh_numbers(ordered.layouts), return_index=True)[1])[:limit]
    return tuple(
        Found(
            layout=ordered.layouts.row(int(row)),
            step_time_s=float(ordered.step_time_s[row]),
            peak_bytes=float(ordered.peak_bytes[row]),
        )
        for row in first
    )


def _infeasible(space: Space, question: Question, *, rejected: Mapping[str, int]) -> Infeasible:
    job = space.job
    asked = (
        f"{job.model.name} on {job.cluster.devices} devices of {job.cluster.name} with {job.global_batch} sequences of "
        f"{job.sequence_length} tokens"
    )
    asked = " ".join((asked, *(["under", *question.limits.options()] if question.limits else ())))
    miss = _nearest_miss(space)
    if miss is None:
        return Infeasible(
            f"no layout of {asked} is legal",
            rejected=dict(rejected),
            hint=possible_instead(job, question.limits)
            or "make the global batch, the heads and the sequence length multiples of what the devices factor into",
        )
    layout, needed = miss
    limit, gib = question.memory_limit_bytes, 2**30
    return Infeasible(
        f"no layout of {asked} fits in {limit / gib:.1f} GiB a device",
        rejected=dict(rejected),
        nearest_miss=f"{describe(layout)} needs {needed / gib:.1f} GiB of {limit / gib:.1f} GiB",
        hint="use more devices, devices with more memory, or shorter sequences",
    )


def _nearest_miss(space: Space) -> tuple[Layout, float] | None:
    """Give the layout of the smallest micro-batch that needs least memory, with its bytes; None if none is legal."""
    branches = space.branches.rows
    smallest = np.flatnonzero(branches["micro_batch"] == branches["micro_batch"].min(initial=1))
    nearest: tuple[Layout, float] | None = None
    for start in range(0, len(smallest), BRANCHES):
        twigs = space.twigs(taken(branches, smallest[start : start + BRANCHES])).rows
        sharded = np.flatnonzero((twigs["zero_stage"] == twigs["zero_stage"].max()) | (twigs["zero_stage"] == 0))
        layouts = least_recomputed(space.job, space.table(space.leaves(taken(twigs, sharded)).rows), limit_bytes=0)
        peak = predict_memory(space.job, layouts).nvidia_smi_bytes
        if len(peak) and (nearest is None or peak.min() < nearest[1]):
            nearest = layouts.row(int(peak.argmin())), float(peak.min())
    return nearest
