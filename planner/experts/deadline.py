"""When to stop improving."""

from dataclasses import dataclass
from math import inf
from time import perf_counter


class TimeIsOver(Exception):
    """The time to stop came within a step that gives nothing until its end."""


@dataclass(slots=True, kw_only=True)
class Deadline:
    """A time to stop at, which everything that improves on a first answer asks for between its steps.

    at: of `perf_counter`. struck: whether anything stopped for it.
    """

    at: float = inf
    struck: bool = False

    def passed(self) -> bool:
        """Say whether it is time to stop; who asks does so if it is."""
        if self.at < inf and perf_counter() >= self.at:
            self.struck = True
        return self.struck

    @property
    def left_s(self) -> float:
        """Seconds until then."""
        return max(0.0, self.at - perf_counter())


NEVER = Deadline()
