"""One thing that the reference launcher can't run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """field: the path of what asks for it. feature: completes "the launcher can't run ...". hint: what to do."""

    field: str
    feature: str
    hint: str = ""
