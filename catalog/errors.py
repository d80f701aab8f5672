"""Every error that meshwright raises on purpose, with the exit code the command line gives it.

MeshwrightError              1   the root: a message, and a hint that says what to do next
  InputError                 2   the user's file or argument is wrong; carries file and path to the field
  MissingData                3   the catalog lacks a number that the model of the machine needs
  Infeasible                 4   searched fully, nothing fits: the tally of reasons and the nearest miss
  SolverFailed               5   a limit reached without an answer, or a fault of a solver
  PlanDrift                  6   `check` planned again and got a different plan
"""

from copy import copy
from typing import ClassVar, Self


class MeshwrightError(Exception):
    """Root of all deliberate errors.

    Args:
        message: one sentence that says what is wrong.
        hint: what to do next, empty where there is nothing to add.

    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def within(self, place: str) -> Self:
        """Give the same error, led by the place where it arose ("cases.yaml: case a")."""
        found = copy(self)
        found.message = f"{place}: {self.message}"
        found.args = (found.message,)
        return found


class InputError(MeshwrightError):
    """A file or an argument of the user is wrong.

    Args:
        message: what is wrong with the field.
        file: the file, empty for a command-line argument.
        path: dotted path to the field ("tiers.1.bandwidth"), empty for the whole document.
        hint: what to do next.

    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, file: str = "", path: str = "", hint: str = "") -> None:
        super().__init__(": ".join(part for part in (file, path, message) if part), hint=hint)
        self.file = file
        self.path = path


class MissingData(MeshwrightError):
    """The catalog lacks a number; it is never guessed."""

    exit_code: ClassVar[int] = 3


class Infeasible(MeshwrightError):
    """The space was searched fully and nothing in it fits.

    Args:
        message: one sentence.
        rejected: how many candidates each reason rejected.
        nearest_miss: the candidate that came closest, in words.
        hint: what to change.

    """

    exit_code: ClassVar[int] = 4

    def __init__(
        self, message: str, *, rejected: dict[str, int] | None = None, nearest_miss: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.rejected = rejected or {}
        self.nearest_miss = nearest_miss


class SolverFailed(MeshwrightError):
    """A solver stopped at its limit without an answer, or failed."""

    exit_code: ClassVar[int] = 5


class PlanDrift(MeshwrightError):
    """Planning again from a plan's own inputs gives a different plan.

    Args:
        message: one sentence.
        differences: one readable line a field that moved.
        hint: what to do next.

    """

    exit_code: ClassVar[int] = 6

    def __init__(self, message: str, *, differences: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.differences = differences
