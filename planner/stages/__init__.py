"""The inner problem of the search: which layers each pipeline stage holds, and how many of them it recomputes."""

from meshwright.planner.stages.cut import Cut, best_cut

__all__ = ["Cut", "best_cut"]
