"""Checkpoints and failures: how often to save the state, where to, and how much of the time is then of use."""

from meshwright.planner.goodput.goodput import Goodput, Option, goodput
from meshwright.planner.goodput.machine import Failures
from meshwright.planner.goodput.simulation import Spread

__all__ = ["Failures", "Goodput", "Option", "Spread", "goodput"]
