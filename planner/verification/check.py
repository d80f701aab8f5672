"""What a check of a plan found."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import isclose

from meshwright.planner.plan_schema import Plan

# Figures of a plan have nine digits, so that sums of some tens of them are off by less than this.
ROUNDING = 1e-6


class Outcome(StrEnum):
    """How a check ended; one that others have to hold for isn't made where they don't."""

    OK = "ok"
    FAILED = "failed"
    NOT_MADE = "not made"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A field of the plan (`path`, dotted), and what is wrong with it."""

    path: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check: its name, what was checked in words and figures, and what is broken."""

    name: str
    what: str
    failures: tuple[Failure, ...] = ()
    made: bool = True

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        if not self.made:
            return Outcome.NOT_MADE
        return Outcome.FAILED if self.failures else Outcome.OK


Failures = Iterator[tuple[str, str]]
"""Of each failure the path and the message, as a check comes upon them."""

Found = tuple[str, Iterable[tuple[str, str]]]
"""What was checked, and of each failure the path and the message."""

Look = Callable[[Plan], Found]


def checked(name: str, look: Look, plan: Plan) -> Check:
    """Make a check of a plan."""
    what, failures = look(plan)
    return Check(
        name=name, what=what, failures=tuple(Failure(path=path, message=message) for path, message in failures)
    )


def same(first: float, second: float) -> bool:
    """Tell whether two figures of a plan are one but for rounding."""
    return isclose(first, second, rel_tol=ROUNDING, abs_tol=1e-12)


def numbers(values: Iterable[int], *, most: int = 6) -> str:
    """List numbers, the first few of them."""
    listed = list(values)
    return ", ".join(map(str, listed[:most])) + (f" and {len(listed) - most} more" if len(listed) > most else "")
