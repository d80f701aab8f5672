"""A decision that a target can express, but for the optimizer's shares, of which several can be."""

from dataclasses import dataclass

from meshwright.planner.offload.decision import Decision
from meshwright.planner.offload.optimizer_law import Shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A decision, with the shares to choose from, as arrays. words: what else the settings need to know of it."""

    decision: Decision
    shares: Shares
    words: tuple[str, ...] = ()
