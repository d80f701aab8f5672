"""The search: every legal layout of every job is evaluated, so that what it returns is proved, not found.

    1  space       all legal layouts (space.py)
    2  memory      predict_memory; kept where nvidia_smi_bytes <= limit
    3  time        predict_time of those
    4  front       the Pareto front of each mesh (front.py), chunk by chunk
    5  order       by the objective, one layout a mesh (objective.py)

Decision variables are the columns of LayoutTable; the constraints are the rules of rules.py and the limit on memory.
Since step 3 sees every feasible layout, the least step time is known exactly: it is the lower bound.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from meshwright.catalog.errors import Infeasible, SolverFailed
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, Layout, LayoutTable
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner.layout.front import Front, joined, mesh_numbers
from meshwright.planner.layout.objective import Objective, best_first, rounded
from meshwright.planner.layout.space import Space, space_of

NO_MEMORY = "it needs more memory than the device offers"
THREADS = min(4, os.cpu_count() or 1)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What some layouts came to: the front of those that fit, and of the others how many, and which came closest."""

    front: Front | None
    feasible: int
    misses: int
    nearest: tuple[float, Layout] | None


def search(jobs: Sequence[Job], *, objective: Objective, memory_limit_bytes: int, top: int) -> SearchResult:
    """Find the best layout over one or more jobs, which differ in the number of devices only.

    Raises Infeasible where no layout is legal or none fits, and SolverFailed where a predicted time is no number.
    """
    spaces = [space_of(job) for job in jobs]
    seen = [
        part for job, space in zip(jobs, spaces, strict=True) for part in _evaluated(job, space, memory_limit_bytes)
    ]
    rejected = sum((Counter(space.rejected) for space in spaces), Counter[str]())
    rejected[NO_MEMORY] += sum(part.misses for part in seen)
    fronts = [part.front for part in seen if part.front is not None]
    if not fronts:
        nearest = min((part.nearest for part in seen if part.nearest), key=lambda miss: miss[0], default=None)
        raise _infeasible(jobs[0], memory_limit_bytes, rejected=+rejected, nearest=nearest)
    front = joined(fronts).reduced()
    order = best_first(objective, front.layouts, step_time_s=front.step_time_s, peak_bytes=front.peak_bytes)
    chosen = _one_a_mesh(front.take(order), limit=top + 1)
    return SearchResult(
        best=chosen[0],
        alternatives=chosen[1:],
        candidates=sum(space.candidates for space in spaces),
        feasible=sum(part.feasible for part in seen),
        rejected=dict(+rejected),
        lower_bound_s=float(front.step_time_s.min()),
    )


def _evaluated(job: Job, space: Space, limit: int) -> list[_Seen]:
    """Evaluate a space slice by slice. The heavy numpy calls release the interpreter, so threads share the work."""
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        return list(pool.map(lambda part: _seen(job, space.layouts(part), limit), space.slices()))


def _seen(job: Job, layouts: LayoutTable, limit: int) -> _Seen:
    peak = rounded(predict_memory(job, layouts).nvidia_smi_bytes)
    fits = peak <= limit
    kept = layouts.take(fits)
    front = Front(layouts=kept, step_time_s=_times(job, kept), peak_bytes=peak[fits]) if len(kept) else None
    least = int(np.where(fits, np.inf, peak).argmin())
    return _Seen(
        front=front.reduced() if front else None,
        feasible=len(kept),
        misses=len(layouts) - len(kept),
        nearest=None if fits.all() else (float(peak[least]), layouts.row(least)),
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


def _infeasible(
    job: Job, limit: int, *, rejected: Mapping[str, int], nearest: tuple[float, Layout] | None
) -> Infeasible:
    asked = (
        f"{job.model.name} on {job.cluster.devices} devices of {job.cluster.name} with {job.global_batch} sequences of "
        f"{job.sequence_length} tokens"
    )
    if nearest is None:
        return Infeasible(
            f"no layout of {asked} is legal",
            rejected=dict(rejected),
            hint="make the global batch, the heads and the sequence length multiples of what the devices factor into",
        )
    needed, layout = nearest
    gib = 2**30
    return Infeasible(
        f"no layout of {asked} fits in {limit / gib:.1f} GiB a device",
        rejected=dict(rejected),
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
    words += _sharding_words(layout) if layout.zero_stage else []
    words += [f"{layout.recompute} recompute"] if layout.recompute != "none" else []
    words += [str(layout.schedule)] if layout.pipeline_parallel > 1 else []
    words += [f"chunks of {'-'.join(map(str, layout.split))} layers"] if layout.split else []
    words += ["vocabulary parallel"] if layout.vocabulary_parallel else []
    return ", ".join([*words, f"micro-batch {layout.micro_batch}"])


def _sharding_words(layout: Layout) -> list[str]:
    hybrid = layout.zero_shard < layout.data_parallel * layout.context_parallel
    stage = f"ZeRO-{layout.zero_stage} over {layout.zero_shard}" if hybrid else f"ZeRO-{layout.zero_stage}"
    return [stage, *narrower_shards(layout)]


def narrower_shards(layout: Layout) -> tuple[str, ...]:
    """Give in words what is sharded over fewer devices than the optimizer states."""
    shards = (
        ("gradients", layout.gradient_shard),
        ("parameters", layout.parameter_shard),
        ("parameters until the backward pass", layout.backward_shard),
    )
    return tuple(f"{what} over {size}" for what, size in shards if size is not None)
