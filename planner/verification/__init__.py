"""Invariants of a plan, recomputed by plain loops that share no code with the search or the cost models."""
