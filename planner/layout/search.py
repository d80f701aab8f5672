"""The search: every legal layout of every job is evaluated, so that what it returns is proved, not found.

    1  space       all legal layouts (space.py)
    2  memory      predict_memory; kept where nvidia_smi_bytes <= limit
    3  time        predict_time of those
    4  front       the Pareto front of each mesh (front.py), chunk by chunk
    5  order       by the objective, one layout a mesh (objective.py)

Decision variables are the columns of LayoutTable; the constraints are the rules of rules.py and the limit on memory. Since step 3
sees every feasible layout, the least step time is known exactly: it is the lower bound.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from meshwright.catalog.errors import Infeasible, SolverFailed
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner.layout.front import Front, joined, mesh_numbers
from meshwright.planner.layout.objective import Objective, best_first, rounded
from meshwright.planner.layout.space import space_of

NO_MEMORY = "it needs more memory than the device offers"


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
    candidates = feasible + sum of rejected (see space.py for what a candidate is).
    lower_bound_s: least step time of all feasible layouts.
    """

    best: Found
    alternatives: tuple[Found, ...]
    candidates: int
    feasible: int
    rejected: Mapping[str, int]
    lower_bound_s: float


class _Tally:
    """What the search has seen so far."""

    def __init__(self) -> None:
        self.candidates = 0
        self.feasible = 0
        self.rejected: Counter[str] = Counter()
        self.front: Front | None = None
        self.nearest: tuple[float, Layout] | None = None

    def add(self, front: Front) -> None:
        """Remember what is worth it of some layouts that fit."""
        self.feasible += len(front.layouts)
        self.front = front.reduced() if self.front is None else joined([self.front, front.reduced()]).reduced()

    def miss(self, layouts: LayoutTable, peak_bytes: np.ndarray) -> None:
        """Count layouts that don't fit, and remember the one that came closest."""
        self.rejected[NO_MEMORY] += len(layouts)
        least = int(peak_bytes.argmin())
        if self.nearest is None or peak_bytes[least] < self.nearest[0]:
            self.nearest = float(peak_bytes[least]), layouts.row(least)


def search(jobs: Sequence[Job], *, objective: Objective, memory_limit_bytes: int, top: int) -> SearchResult:
    """Find the best layout over one or more jobs, which differ in the number of devices only.

    Raises Infeasible where no layout is legal or none fits in the limit, and SolverFailed where a prediction isn't a number.
    """
    tally = _Tally()
    for job in jobs:
        _evaluate(job, memory_limit_bytes, tally)
    if tally.front is None:
        raise _infeasible(jobs[0], memory_limit_bytes, tally)
    front = tally.front
    order = best_first(objective, front.layouts, step_time_s=front.step_time_s, peak_bytes=front.peak_bytes)
    chosen = _one_a_mesh(front.take(order), limit=top + 1)
    return SearchResult(
        best=chosen[0],
        alternatives=chosen[1:],
        candidates=tally.candidates,
        feasible=tally.feasible,
        rejected=dict(tally.rejected),
        lower_bound_s=float(front.step_time_s.min()),
    )


def _evaluate(job: Job, limit: int, tally: _Tally) -> None:
    space = space_of(job)
    tally.candidates += space.candidates
    tally.rejected.update(space.rejected)
    for layouts in space.chunks():
        peak = rounded(predict_memory(job, layouts).nvidia_smi_bytes)
        fits = peak <= limit
        if not fits.all():
            tally.miss(layouts.take(~fits), peak[~fits])
        if fits.any():
            kept = layouts.take(fits)
            tally.add(Front(layouts=kept, step_time_s=_times(job, kept), peak_bytes=peak[fits]))


def _times(job: Job, layouts: LayoutTable) -> np.ndarray:
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


def _infeasible(job: Job, limit: int, tally: _Tally) -> Infeasible:
    asked = (
        f"{job.model.name} on {job.cluster.devices} devices of {job.cluster.name} with {job.global_batch} sequences of "
        f"{job.sequence_length} tokens"
    )
    if tally.nearest is None:
        return Infeasible(
            f"no layout of {asked} is legal",
            rejected=dict(tally.rejected),
            hint="make the global batch, the heads and the sequence length multiples of what the devices factor into",
        )
    needed, layout = tally.nearest
    gib = 2**30
    return Infeasible(
        f"no layout of {asked} fits in {limit / gib:.1f} GiB a device",
        rejected=dict(tally.rejected),
        nearest_miss=f"{describe(layout)} needs {needed / gib:.1f} GiB of {limit / gib:.1f} GiB",
        hint="use more devices, devices with more memory, or shorter sequences",
    )


def describe(layout: Layout) -> str:
    """Give a layout in one line of the field's shorthand, without what is switched off."""
    degrees = (
        ("tp", layout.tensor_parallel),
        ("cp", layout.context_parallel),
        ("pp", layout.pipeline_parallel),
        ("vp", layout.virtual_pipeline),
        ("dp", layout.data_parallel),
        ("ep", layout.expert_parallel),
        ("etp", layout.expert_tensor_parallel),
    )
    words = [f"{name} {degree}" for name, degree in degrees if degree > 1] or ["one device"]
    words += ["sequence parallel"] if layout.sequence_parallel else []
    words += [f"ZeRO-{layout.zero_stage}"] if layout.zero_stage else []
    words += [f"{layout.recompute} recompute"] if layout.recompute != "none" else []
    words += [str(layout.schedule)] if layout.pipeline_parallel > 1 else []
    return ", ".join([*words, f"micro-batch {layout.micro_batch}"])
