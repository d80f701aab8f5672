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

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import monotonic
from typing import Self

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable
from meshwright.planner.layout.bound import branch_bound_s, twig_bound_s
from meshwright.planner.layout.cuts import cut_problems
from meshwright.planner.layout.dominance import is_dominated, settings_of
from meshwright.planner.layout.evaluation import NO_MEMORY, Seen, evaluated
from meshwright.planner.layout.front import Front, mesh_numbers
from meshwright.planner.layout.infeasible import infeasible
from meshwright.planner.layout.objective import Objective, bar_s, best_first, bound_value, rounded, values
from meshwright.planner.layout.question import Found, Progress, Question, SearchResult, Unfound, Watch
from meshwright.planner.layout.rules import Columns
from meshwright.planner.layout.space import Space, space_of, taken
from meshwright.planner.stages.cut import Cut, best_cut
from meshwright.planner.stages.leanest import leanest_cut, less_bytes

DOMINATED = "another method of context parallelism is as good in every way"
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
        raise infeasible(space_of(jobs[0], question.limits), question, rejected=found.rejected)
    return found


def attempt(jobs: Sequence[Job], question: Question, *, watch: Watch | None = None) -> SearchResult | Unfound:
    """Do the same, but give what was looked at where nothing is found. Raises SolverFailed."""
    ends = None if question.time_limit_s is None else monotonic() + question.time_limit_s
    spaces = [space_of(job, question.limits) for job in jobs]
    seen, opened, left = Seen(), [], np.inf
    for space in spaces:
        explored = _explored(space, question, seen, ends=ends, watch=watch)
        seen, left = explored.seen, min(left, _left_value(question, space, explored.unopened_s))
        opened.append(explored.opened)
    for space, twigs in zip(spaces, opened, strict=True):
        seen, uncut_s = _cut(space, twigs, question, seen, ends=ends, watch=watch)
        left = min(left, _left_value(question, space, uncut_s))
    if question.objective is Objective.MEMORY:
        for space, twigs in zip(spaces, opened, strict=True):
            seen, uncut_s = _leaner_cuts(space, twigs, question, seen, watch=watch)
            left = min(left, _left_value(question, space, uncut_s))
    candidates, rejected = sum(space.candidates for space in spaces), dict(+seen.rejected)
    ordered = None if seen.front is None else _ordered(question, seen.front)
    ordered = ordered and ordered.take(np.flatnonzero(ordered.step_time_s <= question.slowest_s))
    if not ordered:
        return Unfound(candidates=candidates, feasible=seen.feasible, rejected=rejected)
    chosen, value = _one_a_mesh(ordered, limit=question.top + 1), _value(question, ordered)
    return SearchResult(
        best=chosen[0],
        alternatives=chosen[1:],
        candidates=candidates,
        feasible=seen.feasible,
        rejected=rejected,
        value=value,
        lower_bound=min(value, left),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Explored:
    """What has been seen, twigs that were opened, and the least bound of what is left: infinity but at time's end."""

    seen: Seen
    opened: _Waiting
    unopened_s: float


def _explored(space: Space, question: Question, seen: Seen, *, ends: float | None, watch: Watch | None) -> _Explored:
    """Open what may be of use of one space."""
    job, branches = space.job, space.branches.rows
    seen = seen.with_([Seen(rejected=Counter(space.branches.rejected))])
    waiting = opened = _twigs(space, question, taken(branches, slice(0)))[0]
    if not len(space.branches):
        return _Explored(seen=seen, opened=opened, unopened_s=np.inf)
    bound_s = branch_bound_s(job, space.table(branches))
    order, settings = np.argsort(bound_s, kind="stable"), settings_of(branches)
    reached = 0
    while True:
        bar = (1 + ROUNDING) * _bar_s(question, seen.front, devices=job.cluster.devices)
        fresh = order[reached : reached + BRANCHES]
        fresh = fresh[bound_s[fresh] <= bar]
        reached += len(fresh)
        kept = _undominated(space, settings, fresh)
        more, rejected = _twigs(space, question, taken(branches, kept))
        rejected[DOMINATED] = int(space.below_branches(taken(branches, np.setdiff1d(fresh, kept))).sum())
        waiting = waiting.with_(more).best_first()
        useful = int(np.searchsorted(waiting.bound_s, bar, side="right"))
        rejected[SLOWER] = _below(space, waiting.take(slice(useful, None)))
        seen, waiting = seen.with_([Seen(rejected=rejected)]), waiting.take(slice(useful))
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
    seen = seen.with_([Seen(rejected=Counter({UNTRIED if late else SLOWER: left}))])
    return _Explored(seen=seen, opened=opened, unopened_s=float(least_s) if late else np.inf)


def _cut(
    space: Space, twigs: _Waiting, question: Question, seen: Seen, *, ends: float | None, watch: Watch | None
) -> tuple[Seen, float]:
    """Cut layers unevenly where that may be of use; give what has been seen then, and the least bound of what is left.

    The bounds of twigs are bounds of their cuts too, so that what was never opened has none of use. Only what may be
    the best is cut, and runners-up aren't. For the memory that is the fastest, which decides how slow others may be.
    """
    job, limit, left_s = space.job, question.memory_limit_bytes, np.inf
    objective = Objective.TIME if question.objective is Objective.MEMORY else question.objective
    first = replace(question, objective=objective, top=0)
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
        layout = problems.layouts.row(number)
        split = limits.cut(len(job.model.layers), layout.pipeline_parallel)
        cut = best_cut(job, layout, memory_limit_bytes=limit, below_s=bar, split=split)
        if cut is not None:
            seen = seen.with_([Seen(front=_front_of(cut))])
            left_s = left_s if cut.is_optimal else min(left_s, cut.bound_s)
    return seen, left_s


def _leaner_cuts(
    space: Space, twigs: _Waiting, question: Question, seen: Seen, *, watch: Watch | None
) -> tuple[Seen, float]:
    """Cut layers unevenly where that needs less memory than all that is fast enough; give the same as _cut."""
    job, left_s = space.job, np.inf
    if seen.front is None:
        return seen, left_s
    bar = (1 + ROUNDING) * _bar_s(question, seen.front, devices=job.cluster.devices)
    limit, table = less_bytes(_value(question, _ordered(question, seen.front))), space.table(twigs.twigs)
    problems = cut_problems(job, table, memory_limit_bytes=limit, below_s=bar, limits=question.limits)
    for number, bound_s in enumerate(problems.bound_s):
        if watch is not None:
            watch(_progress(space, question, seen, bound_s, waiting=len(problems) - number))
        leaner = leanest_cut(
            job,
            layout := problems.layouts.row(number),
            memory_limit_bytes=limit,
            below_s=bar,
            split=question.limits.cut(len(job.model.layers), layout.pipeline_parallel),
        )
        left_s = min(left_s, leaner.left_s)
        if leaner.cut is not None:
            seen, limit = seen.with_([Seen(front=_front_of(leaner.cut))]), less_bytes(leaner.cut.peak_bytes)
    return seen, left_s


def _left_value(question: Question, space: Space, least_s: float) -> float:
    if not np.isfinite(least_s):
        return np.inf
    return _bound_value(question, least_s, devices=space.job.cluster.devices)


def _front_of(cut: Cut) -> Front:
    time_s, peak_bytes = rounded(np.array([[cut.step_time_s], [cut.peak_bytes]]))
    return Front(layouts=LayoutTable.of([cut.layout]), step_time_s=time_s, peak_bytes=peak_bytes)


def _bar_s(question: Question, front: Front | None, *, devices: int) -> float:
    bar = bar_s(
        question.objective,
        front,
        top=question.top,
        devices=devices,
        slower_by=question.slower_by,
        risk=question.risk,
    )
    return min(bar, question.slowest_s)


def _ordered(question: Question, front: Front) -> Front:
    return best_first(question.objective, front, slower_by=question.slower_by, risk=question.risk)


def _value(question: Question, ordered: Front) -> float:
    return float(values(question.objective, ordered, risk=question.risk)[0])


def _bound_value(question: Question, bound_s: float, *, devices: int) -> float:
    return bound_value(question.objective, bound_s, devices=devices, risk=question.risk)


def _progress(space: Space, question: Question, seen: Seen, least_s: float, *, waiting: int) -> Progress:
    devices, best = space.job.cluster.devices, None
    if seen.front is not None:
        best = _value(question, _ordered(question, seen.front))
    bound = _bound_value(question, float(least_s), devices=devices)
    return Progress(devices=devices, best=best, bound=bound if best is None else min(bound, best), waiting=waiting)


def _undominated(space: Space, settings: IntArray, fresh: IntArray) -> IntArray:
    """Give which of some branches no other branch of the space is as good as, in order."""
    peers = np.flatnonzero(np.isin(settings, settings[fresh]))
    table = space.table(taken(space.branches.rows, peers))
    return fresh[~np.isin(fresh, peers[is_dominated(space.job, table, settings[peers])])]


def _twigs(space: Space, question: Question, branches: Columns) -> tuple[_Waiting, Counter[str]]:
    """Give the twigs of some branches that something may fit of, and why how many candidates of the others are out."""
    grown = space.twigs(branches)
    twigs, rejected = grown.rows, Counter(grown.rejected)
    bound_s = np.zeros(0)
    if len(twigs["zero_stage"]):
        bound_s = twig_bound_s(space.job, space.table(twigs), memory_limit_bytes=question.memory_limit_bytes)
    waiting, fits = _Waiting(twigs=twigs, bound_s=bound_s), np.isfinite(bound_s)
    rejected[NO_MEMORY] += _below(space, waiting.take(np.flatnonzero(~fits)))
    return waiting.take(np.flatnonzero(fits)), rejected


def _below(space: Space, waiting: _Waiting) -> int:
    return int(space.below_twigs(waiting.twigs).sum())


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
