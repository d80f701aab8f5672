"""Invariants of a plan of a mixed cluster, recomputed by plain loops from the plan's own inputs."""

from meshwright.planner.verification.mixed.verify import verify_mixed

__all__ = ["verify_mixed"]
