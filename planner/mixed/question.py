"""What a search of mixed clusters is asked."""

from dataclasses import dataclass

from meshwright.costmodels.job import Job
from meshwright.hardware.islands import Islands
from meshwright.planner.layout.limits import Limits
from meshwright.planner.mixed.ways.allowed import Permission


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """What is asked: a job on each island, with the whole global batch, and what a device of each may use.

    allow: the ways that change the mathematics that may be used.
    """

    islands: Islands
    jobs: tuple[Job, ...]
    memory_limits_bytes: tuple[int, ...]
    limits: Limits
    allow: tuple[Permission, ...] = ()

    @property
    def batch(self) -> int:
        """Sequences of a step."""
        return self.jobs[0].global_batch
