"""What keeps a target from running a plan: the feature that it lacks, and the layouts that do without."""

from dataclasses import dataclass, field
from typing import Any

Change = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """A feature of a plan that a target can't express.

    path: the field of the plan. feature: what can't be expressed, a clause that follows the target's name: "has no
    ring in both directions". instead: changes of layout fields that each do without, nearest first; empty where no
    layout does, as where the model itself is at fault.
    """

    path: str
    feature: str
    instead: tuple[Change, ...] = field(default=())
