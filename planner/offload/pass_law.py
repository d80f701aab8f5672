"""What one micro-batch's passes take, as flow shops of the device and the two ways of its link.

Layers l = 0 .. n - 1 take F_l forward and B_l backward, with A_l to compute again; o_l seconds of activations leave and
return, w_l seconds of parameters come for each pass, g_l of gradients leave. Each way of the link, and the device, does
one thing at a time, in order; W layers have buffers at once.

    fetched forward    h_l >= h_(l-1) + w_l                     h_l >= x_(l-W) + w_l
    computed           x_l >= x_(l-1) + F_l, h_l + F_l          x_l >= d_(l-W) + F_l
    left               d_l >= d_(l-1) + o_l                     d_l >= x_l + o_l
    returned           r_l >= r_(l+1) + o_l + w_l               r_l >= y_(l+W) + o_l + w_l    r_l >= d_l + o_l + w_l
    computed           y_l >= y_(l+1) + B_l + A_l, r_l + B_l + A_l
    drained            e_l >= e_(l+1) + g_l                     e_l >= y_l + g_l

with y_n what is computed between the passes behind x_(n-1), r_n = h_(n-1), e_n = d_(n-1). The pass ends with y_0 and
e_0. What neither leaves nor streams takes no part in the link's order.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import FloatArray
from meshwright.planner.offload.decision import Choice, Decision
from meshwright.planner.offload.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """Seconds of what a decision makes of each layer, [layers], in the letters above."""

    left_s: FloatArray
    fetched_s: FloatArray
    again_s: FloatArray


def loads_of(problem: Problem, decision: Decision) -> Loads:
    """Give the seconds that a decision makes the link and the device spend on each layer."""
    layers, rate = problem.layers, problem.host.copy_bytes_per_s
    leaves, again = decision.choices == Choice.OFFLOAD, decision.choices == Choice.RECOMPUTE
    again_s = np.where(again, layers.again_s, 0.0).sum(axis=1)
    if decision.whole:
        again_s = np.where((again | ~problem.again).all(axis=1), layers.whole_s, again_s)
    return Loads(
        left_s=(leaves * layers.kept_bytes).sum(axis=1) / rate,
        fetched_s=decision.streamed * layers.weight_bytes / rate,
        again_s=again_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTimes:
    """When a pass ends, by what share of the parameters is updated on the host.

    ends_s: with nothing drained. The last gradient has left `behind_s + cpu share x drains_s` after the start, [n + 1].
    """

    ends_s: float
    behind_s: FloatArray
    drains_s: FloatArray

    def pass_s(self, cpu: FloatArray | float) -> FloatArray:
        """Give the seconds of a pass, for one or many shares."""
        drained = self.behind_s + np.asarray(cpu)[..., np.newaxis] * self.drains_s
        return np.maximum(self.ends_s, np.where(np.asarray(cpu) > 0, drained.max(axis=-1), 0.0))


def pass_times(problem: Problem, loads: Loads) -> PassTimes:
    """Run the recurrences of one micro-batch."""
    layers, count, window = problem.layers, len(problem.layers), problem.window
    left, fetched = loads.left_s.tolist(), loads.fetched_s.tolist()
    forward, backward = layers.forward_s.tolist(), (layers.backward_s + loads.again_s).tolist()
    fetch, out, now = 0.0, 0.0, problem.first_s
    computed, gone = [0.0] * count, [0.0] * count
    for layer in range(count):
        if fetched[layer]:
            fetch = max(fetch, computed[layer - window] if layer >= window else 0.0) + fetched[layer]
            now = max(now, fetch)
        if layer >= window:
            now = max(now, gone[layer - window])
        now += forward[layer]
        out = max(out, now) + left[layer]
        computed[layer], gone[layer] = now, out
    now += problem.middle_s
    returned, done = fetch, [0.0] * count
    for layer in reversed(range(count)):
        coming = left[layer] + fetched[layer]
        if coming:
            returned = max(returned, done[layer + window] if layer + window < count else 0.0, gone[layer]) + coming
            now = max(now, returned)
        now += backward[layer]
        done[layer] = now
    drains = np.cumsum(layers.drain_bytes) / problem.host.copy_bytes_per_s
    return PassTimes(
        ends_s=max(now + problem.last_s, problem.slowest_s),
        behind_s=np.array([*done, out]),
        drains_s=np.append(drains, drains[-1]),
    )
