"""Replaying the moves of a reshard on real shards, which are cut here by plain loops of their own."""

from meshwright.planner.verification.resharding.replay import replayed

__all__ = ["replayed"]
