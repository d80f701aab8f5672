"""What to say where nothing fits: what was asked, which layout came closest, and what to do."""

from collections.abc import Mapping

import numpy as np

from meshwright.catalog.errors import Infeasible
from meshwright.costmodels.layout import Layout
from meshwright.costmodels.predict import predict_memory
from meshwright.planner.layout.description import describe
from meshwright.planner.layout.least_recomputed import least_recomputed
from meshwright.planner.layout.possible import possible_instead
from meshwright.planner.layout.question import Question
from meshwright.planner.layout.space import Space, taken

BRANCHES = 4096


def infeasible(space: Space, question: Question, *, rejected: Mapping[str, int]) -> Infeasible:
    """Give the error of a space in which nothing is legal or nothing fits."""
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
    if not len(space.branches):
        return None
    smallest = np.flatnonzero(branches["micro_batch"] == branches["micro_batch"].min())
    nearest: tuple[Layout, float] | None = None
    for start in range(0, len(smallest), BRANCHES):
        twigs = space.twigs(taken(branches, smallest[start : start + BRANCHES])).rows
        stage = twigs["zero_stage"]
        sharded = np.flatnonzero((stage == stage.max(initial=0)) | (stage == 0))
        leaves = space.table(space.leaves(taken(twigs, sharded)).rows)
        layouts = least_recomputed(space.job, leaves, limit_bytes=0, limits=space.limits)
        peak = predict_memory(space.job, layouts).nvidia_smi_bytes
        if len(peak) and (nearest is None or peak.min() < nearest[1]):
            nearest = layouts.row(int(peak.argmin())), float(peak.min())
    return nearest
