"""What the stages of a pipeline take, at the stages where a chain of passes may turn."""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """Seconds of one micro-batch on the stages of some pipelines, each of as many chunks.

    Equal neighbours are given by the first and the last of them, between which nothing that a chain gains has its
    maximum: each of these turns stands for itself and for the stages behind the turn before it, which are like it.

    stage, steps: each turn's stage, and how many it stands for, [turns, layouts], in the order of the pipeline; 0 and 0
    for padding, at the end.
    forward_s, backward_s, weight_s: a stage's forward passes, its backward passes without weight gradients, and its
    weight gradients, [chunks, turns, layouts] in the order in which a micro-batch meets the chunks; 0 for padding.
    """

    stage: IntArray
    steps: IntArray
    forward_s: FloatArray
    backward_s: FloatArray
    weight_s: FloatArray

    @property
    def busiest_s(self) -> FloatArray:
        """Seconds that the busiest stage computes for one micro-batch, [layouts]."""
        longest: FloatArray = (self.forward_s + self.backward_s + self.weight_s).sum(axis=0).max(axis=0)
        return longest

    def mean_s(self, seconds: FloatArray) -> FloatArray:
        """Give the mean over stages and chunks, [layouts], of seconds of [chunks, turns, layouts]."""
        mean: FloatArray = (seconds.mean(axis=0) * self.steps).sum(axis=0) / self.steps.sum(axis=0)
        return mean

    def until_s(self, seconds: FloatArray) -> FloatArray:
        """Sum one pass of each stage up to and with each turn, [turns, layouts], given what each turn's takes."""
        total: FloatArray = np.cumsum(self.steps * seconds, axis=0)
        return total

    def best_from(self, seconds: FloatArray) -> FloatArray:
        """Give for each turn the maximum from it on, padding left out, [turns, layouts]."""
        kept = np.where(self.steps > 0, seconds, -np.inf)
        best: FloatArray = np.maximum.accumulate(kept[::-1], axis=0)[::-1]
        return best

    def best(self, seconds: FloatArray) -> FloatArray:
        """Give the maximum over turns, padding left out, [layouts]."""
        best: FloatArray = np.where(self.steps > 0, seconds, -np.inf).max(axis=0)
        return best


def best_until(seconds: FloatArray) -> FloatArray:
    """Give for each turn the maximum up to it, [turns, layouts]."""
    best: FloatArray = np.maximum.accumulate(seconds, axis=0)
    return best
