"""Invariants of a plan, recomputed by plain loops that share no code with the search or the cost models."""

from meshwright.planner.verification.check import Check, Failure, Outcome
from meshwright.planner.verification.verify import require_verified, verify

__all__ = ["Check", "Failure", "Outcome", "require_verified", "verify"]
