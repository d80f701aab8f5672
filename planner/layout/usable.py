"""How many of a cluster's devices layouts can use, where not all of them.

Each rule of meshes is about one degree, so that the numbers of devices that meshes can have are the products of legal
degrees, at most all devices:

    {t c p d : t in T, c in C, p in P, d in D}

Of these the largest is taken that has layouts by all other rules too. Where limits leave none to any of the largest
TRIED, they leave none at all, but for the odd case: then what there would be without limits is.
"""

from collections.abc import Callable, Iterator

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import IntArray
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.rules import MESH_RULES
from meshwright.planner.layout.space import Space, space_of, taken

TRIED = 8
# Branches are looked into so many at a time.
BRANCHES = 512
AXES = ("tensor_parallel", "context_parallel", "data_parallel", "pipeline_parallel")
# What of a branch is of consequence to rules and limits of what is below it.
DECISIVE = (*AXES, "micro_batch")


def largest_usable(job_on: Callable[[int], Job], devices: int, limits: Limits) -> int:
    """Give the largest number of devices, at most `devices`, that a layout within limits can use.

    Where a user's limits leave none to any, it is the largest without them; where there is none at all, all devices.

    Args:
        job_on: gives the job on so many devices.
        devices: of the cluster.
        limits: what is asked of the layout.

    """
    for asked in (limits, limits.lifted()) if limits.fields() else (limits,):
        for number in _mesh_sizes(job_on(devices), asked)[::-1][:TRIED]:
            if _has_layouts(space_of(job_on(int(number)), asked)):
                return int(number)
    return devices


def _mesh_sizes(job: Job, limits: Limits) -> IntArray:
    """Give the numbers of devices that meshes can have, ascending."""
    sizes = np.ones(1, dtype=np.int64)
    for axis in AXES:
        products = np.outer(sizes, _degrees(job, axis, limits))
        sizes = np.unique(products[products <= job.cluster.devices])
    return sizes


def _degrees(job: Job, axis: str, limits: Limits) -> IntArray:
    """Give the legal degrees of one axis, ascending."""
    degrees = np.arange(1, job.cluster.devices + 1)
    columns = {name: np.ones_like(degrees) for name in AXES} | {axis: degrees}
    kept = np.ones(len(degrees), dtype=bool)
    for rule in (*MESH_RULES, *limits.rules((axis,))):
        kept &= rule.keeps(job, columns)
    return degrees[kept]


def _has_layouts(space: Space) -> bool:
    """Say whether a layout is legal; without limits each branch has some."""
    if not space.limits:
        return len(space.branches) > 0
    rows = space.branches.rows
    _, first = np.unique(np.stack([rows[name] for name in DECISIVE]), axis=1, return_index=True)
    return any(_parts(space, np.sort(first)))


def _parts(space: Space, branches: IntArray) -> Iterator[bool]:
    """Say of each part of some branches whether it has legal leaves."""
    for start in range(0, len(branches), BRANCHES):
        twigs = space.twigs(taken(space.branches.rows, branches[start : start + BRANCHES]))
        yield len(space.leaves(twigs.rows)) > 0
