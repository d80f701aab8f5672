"""A row of `make bench-mixed`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A job, what was found, its bar in words, and whether that holds."""

    job: str
    found: str
    bar: str
    holds: bool
