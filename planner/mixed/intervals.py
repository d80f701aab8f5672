"""How far to trust what a mixed plan predicts: the intervals of its islands, which nothing measured joins.

No measured step ran on islands, so that links that training crosses count like a practice that wasn't measured
(uncertainty.py); devices are those of all islands that train. A step is as sure as the least sure of its islands, a
device's memory as its own.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from meshwright.catalog.uncertainty import shipped_uncertainty
from meshwright.costmodels.job import Job
from meshwright.planner.figures import significant
from meshwright.planner.mixed.question import Mixed
from meshwright.planner.mixed.solution import Solution
from meshwright.planner.plan_schema import IntervalSection
from meshwright.planner.practices import practices_of
from meshwright.planner.uncertainty import Knowledge, Quantity, interval, reasons

ISLANDS = "islands joined by links"


def step_interval(asked: Mixed, best: Solution) -> IntervalSection:
    """Give the interval of the step: that of the least sure island, around the step."""
    found = [
        interval(
            best.step_time_s,
            quantity=Quantity.STEP_TIME,
            job=job,
            knowledge=Knowledge.TOLD,
            uncertainty=shipped_uncertainty(),
            practices=practices,
        )
        for job, practices in _used(asked, best)
    ]
    widest = max(found, key=lambda each: math.log(each.high / each.low))
    return IntervalSection(low=significant(widest.low), high=significant(widest.high))


def step_reasons(asked: Mixed, best: Solution) -> tuple[str, ...]:
    """Say why the interval of the step is wider than that of measured machines, each reason once."""
    every = (reasons(job, shipped_uncertainty(), practices) for job, practices in _used(asked, best))
    return tuple(dict.fromkeys(reason for found in every for reason in found))


def memory_interval(job: Job, peak_bytes: float) -> IntervalSection:
    """Give the interval of a device's memory, as far below as above; `job` is that of its island."""
    found = interval(
        peak_bytes,
        quantity=Quantity.NVIDIA_SMI,
        job=job,
        knowledge=Knowledge.TOLD,
        uncertainty=shipped_uncertainty(),
    )
    return IntervalSection(low=significant(peak_bytes**2 / found.high), high=significant(found.high))


def _used(asked: Mixed, best: Solution) -> Iterator[tuple[Job, Sequence[str]]]:
    """Give the job of each island that trains, on the devices of all of them, and the practices of its layout."""
    used = [island for chain in best.shape for island in chain]
    devices = sum(asked.jobs[island].cluster.devices for island in used)
    for party in best.parties:
        for island, layout in zip(party.chain, party.layouts, strict=True):
            job = asked.jobs[island]
            joined = (ISLANDS,) if len(used) > 1 else ()
            yield replace(job, cluster=replace(job.cluster, devices=devices)), (*practices_of(layout), *joined)
