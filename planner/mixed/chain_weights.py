"""A bound of pipelines by weights of the chains of passes that their steps are no shorter than.

Stage s of P, counted from 0, takes t_s = x_s + n_s c_s with n_s of L layers. For any weights w_k, which sum up to 1, of
the chains of passes that turn on stage k (schedule/chains.py), with M micro-batches in the order of 1F1B,

    T >= sum over k of w_k T_k
    T_k =  sum over s < k of t_s + (M - P + 1 + k) t_k + 2 sum over s > k of t_s      of k >= P - M
           sum over s < k of t_s + M t_k                                              of any k

(the first from some stage on, the second before it), that is sum over s of q_s t_s >= sum q_s x_s + L min q_s c_s.
Going from stage to stage, w_s is chosen so that q_s c_s is the same u for all of them where that is possible; u is
found by halving.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray

WEIGHINGS = 16
# From which of the stages where they can chains turn twice, as shares of those.
FROM = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSeconds:
    """The stages of configurations, [n, stages]: links that are like stages, and padding, hold no layers.

    each_s: of a layer; again_s: what it takes more where layers have to be computed again, of more than `kept` of them;
    most: how many fit. extra_s: of all else; shortest_s: of the shortest layer.
    """

    holds: BoolArray
    each_s: FloatArray
    again_s: FloatArray
    kept: FloatArray
    most: FloatArray
    extra_s: FloatArray
    shortest_s: FloatArray

    def take(self, rows: IntArray) -> Self:
        """Give some configurations."""
        return type(self)(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

    @classmethod
    def joined(cls, several: Sequence[Self]) -> Self:
        """Give several, one after another, with as many stages as the longest has."""
        width = max(each.each_s.shape[1] for each in several)
        values = {
            item.name: np.concatenate([_padded(getattr(each, item.name), width, item.name) for each in several])
            for item in fields(cls)
        }
        return cls(**values)

    def layers_by(self, time_s: FloatArray) -> FloatArray:
        """Give how many layers each stage is done with by a time, [n], not in whole ones."""
        left_s = np.maximum(time_s[:, np.newaxis] - self.extra_s, 0.0)
        whole = left_s / self.each_s
        more = self.kept + (left_s - self.kept * self.each_s) / (self.each_s + self.again_s)
        return np.where(self.holds, np.minimum(np.where(whole <= self.kept, whole, more), self.most), 0.0)


def _padded(values: FloatArray, width: int, name: str) -> FloatArray:
    filled = np.ones if name == "each_s" else np.zeros
    return np.column_stack([values, filled((len(values), width - values.shape[1]), dtype=values.dtype)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """Pipelines, [n]: their stages, micro-batches and number of stages, with links that are like stages.

    layers: to be dealt. beside_s: what a step takes beside its passes, at least.
    """

    seconds: StageSeconds
    total: FloatArray
    width: IntArray
    layers: int
    beside_s: FloatArray


def weighted_bound_s(given: Sequence[Weighed]) -> FloatArray:
    """Give the bounds of the steps of some pipelines, of one model, one after another."""
    seconds = StageSeconds.joined([each.seconds for each in given])
    total, width, beside_s = (
        np.concatenate([getattr(each, name) for each in given]) for name in ("total", "width", "beside_s")
    )
    found = np.zeros(len(total))
    least = np.maximum(width - total, 0.0)
    for share in FROM:
        turns = least + np.ceil(share * (width - least))
        found = np.maximum(found, _from_s(seconds, total, width, turns, layers=given[0].layers))
    return np.asarray(found + beside_s)


def _from_s(stages: StageSeconds, total: FloatArray, width: IntArray, turns: FloatArray, *, layers: int) -> FloatArray:
    """Give the bound with chains that turn twice from stage `turns` on, [n], and only once before."""
    low = np.zeros(len(total))
    high = np.max(np.where(stages.holds, stages.each_s, 0.0), axis=1, initial=0.0) * np.maximum(total, 1.0) * 2.0
    each_s, holds = np.ascontiguousarray(stages.each_s.T), np.ascontiguousarray(stages.holds.T)
    for _ in range(WEIGHINGS):
        middle = (low + high) / 2.0
        enough = _weights(each_s, holds, total, width, turns, middle).sum(axis=0) >= 1.0
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    weights = _weights(each_s, holds, total, width, turns, high).T
    summed = weights.sum(axis=1, keepdims=True)
    counted = _counted(weights / np.where(summed > 0, summed, 1.0), total, width, turns)
    least_s = np.where(stages.holds, counted * stages.each_s, np.inf).min(axis=1, initial=np.inf)
    found = (counted * stages.extra_s).sum(axis=1) + layers * least_s
    return np.where(np.isfinite(found), found, 0.0)


def _weights(
    each_s: FloatArray, holds: BoolArray, total: FloatArray, width: IntArray, turns: FloatArray, wanted_s: FloatArray
) -> FloatArray:
    """Give weights, [stages, n], by which a layer counts so much on each stage where that is possible."""
    weights = np.zeros(each_s.shape)
    before, twice = np.zeros(len(total)), np.zeros(len(total))
    for stage in range(len(weights)):
        once = stage < turns
        own = np.where(once, total - 1.0, total - width + stage)
        missing = wanted_s / each_s[stage] - (1.0 - before + 2.0 * twice)
        found = np.divide(missing, own, out=np.zeros(len(total)), where=own > 0)
        weights[stage] = np.where(holds[stage], np.maximum(found, 0.0), 0.0)
        before = before + weights[stage]
        twice = twice + np.where(once, 0.0, weights[stage])
    return weights


def _counted(weights: FloatArray, total: FloatArray, width: IntArray, turns: FloatArray) -> FloatArray:
    """Give how often weights count each stage, [n, stages]: q of above."""
    stage = np.arange(weights.shape[1])
    once = stage < turns[:, np.newaxis]
    late = np.where(once, 0.0, weights)
    before = np.cumsum(late, axis=1) - late
    behind = weights.sum(axis=1, keepdims=True) - np.cumsum(weights, axis=1)
    own = np.where(once, total[:, np.newaxis], (total - width + 1.0)[:, np.newaxis] + stage)
    return np.asarray(behind + weights * own + 2.0 * before)
