"""Predictions of given layouts, and how far they are from what was measured."""

from meshwright.planner.accuracy.accuracy import Accuracy, accuracy
from meshwright.planner.accuracy.case import Case
from meshwright.planner.accuracy.case_file import load_cases
from meshwright.planner.accuracy.estimate import Estimate, Predicted, estimate

__all__ = ["Accuracy", "Case", "Estimate", "Predicted", "accuracy", "estimate", "load_cases"]
