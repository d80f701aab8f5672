"""Leaves evaluated: memory of all, the step time of those that fit, and of these the Pareto front of each mesh."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from meshwright.catalog.errors import SolverFailed
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner.layout.front import Front, joined
from meshwright.planner.layout.least_recomputed import every_count, least_recomputed
from meshwright.planner.layout.objective import Objective, rounded
from meshwright.planner.layout.question import Question
from meshwright.planner.layout.rules import Columns
from meshwright.planner.layout.space import Space

NO_MEMORY = "it needs more memory than the device offers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
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


def evaluated(space: Space, twigs: Columns, question: Question) -> Seen:
    """Evaluate all leaves of some twigs. The heavy numpy calls release the interpreter, so threads share the work."""
    leaves = space.leaves(twigs)
    layouts, leaf = space.table(leaves.rows), np.arange(len(leaves))
    if question.objective is Objective.MEMORY:
        layouts, leaf = every_count(space.job, layouts, limits=space.limits)
    else:
        limit_bytes = question.memory_limit_bytes
        layouts = least_recomputed(space.job, layouts, limit_bytes=limit_bytes, limits=space.limits)
    peak = rounded(predict_memory(space.job, layouts).nvidia_smi_bytes)
    fits = peak <= question.memory_limit_bytes
    kept = layouts.take(fits)
    front = Front(layouts=kept, step_time_s=_times(space.job, kept), peak_bytes=peak[fits]) if len(kept) else None
    feasible = len(np.unique(leaf[fits]))
    return Seen(
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
