"""What a search is asked, what it says on the way, and what it answers."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from meshwright.costmodels.layout import Layout
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.objective import SLOWER_BY_AT_MOST, Objective
from meshwright.planner.layout.risk import NO_RISK, Risk


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A layout that fits, with its step time and its peak memory as nvidia-smi counts it."""

    layout: Layout
    step_time_s: float
    peak_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What the search proved.

    alternatives: the best layouts of other meshes, best first.
    candidates = feasible + sum of rejected (see space.py for what a candidate is); feasible are those that were
    evaluated and fit, and SLOWER is the reason of those that needn't be.
    lower_bound: nothing that fits comes to less under the objective: seconds, device-seconds, or bytes (objective.py).
    value: what the best layout comes to.
    """

    best: Found
    alternatives: tuple[Found, ...]
    candidates: int
    feasible: int
    rejected: Mapping[str, int]
    value: float
    lower_bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfound:
    """What a search that found nothing looked at, counted as in SearchResult."""

    candidates: int
    feasible: int
    rejected: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a search is.

    devices: of the size that it is at. best: what the best layout so far comes to under the objective, None where there
    is none. bound: what no layout comes to less than, at this size. waiting: branches and twigs that may be better.
    """

    devices: int
    best: float | None
    bound: float
    waiting: int


Watch = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a search.

    memory_limit_bytes: what a device may use. top: how many alternatives are asked for. time_limit_s: when to stop, in
    seconds from the start; None for not before everything is proved. limits: what is asked of the layout itself.
    slower_by: for the memory, by how much a layout may be slower than the fastest. slowest_s: no slower step is of use.
    risk: for the robust, how much longer than predicted steps may take.
    """

    objective: Objective
    memory_limit_bytes: int
    top: int
    time_limit_s: float | None = None
    limits: Limits = field(default_factory=Limits)
    slower_by: float = SLOWER_BY_AT_MOST
    slowest_s: float = math.inf
    risk: Risk = NO_RISK
