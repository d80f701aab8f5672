"""An event simulation of a step's streams, which shares no code with the laws that plans are made by."""

from meshwright.planner.offload.simulation.step import Simulated, simulated

__all__ = ["Simulated", "simulated"]
