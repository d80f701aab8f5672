"""The best plan for what is left of a cluster or has been added, weighed against the state that must move."""

from meshwright.planner.change.left import Change
from meshwright.planner.change.replan import Candidate, Replanned, replanned

__all__ = ["Candidate", "Change", "Replanned", "replanned"]
