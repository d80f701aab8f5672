"""One chunk a stage, one backward pass for each forward pass: 1F1B, ZB-H1, ZB-2p, as the longest chain of passes.

Stage s of P runs W_s = c (P - 1 - s) forward passes, then a forward and a backward pass in turn, then backward passes;
the weight gradients of a micro-batch follow the backward pass of the one c s later, those left come last. c = 1 is 1F1B
(arXiv 2104.04473, section 2.2), where weight gradients are part of the backward pass, and ZB-H1 (arXiv 2401.10241,
section 2.1); c = 2 is ZB-H2 (section 2.2), the order behind ZB-2p. A pass waits for the one before it on its
stage and for the one that feeds it, so a step takes as long as the longest chain of such passes. With f, b, w the
seconds of a forward pass, a backward pass without and the weight gradients of one stage, chains are those that

    1  run forward passes as far as a stage j, W_j of them on the slowest stage up to there, turn, and come back to
       some stage k <= j for its first backward pass
           sum f in [0, j] + W_j max f in [0, j] + sum b in (k, j]
    2  stay on k while it runs pairs of passes, and the weight gradients among them
           (M - W_k - 1) (f_k + b_k)
    3  leave k by its last forward pass, turn at a stage j >= k, run the W_j backward passes left of a stage l <= j with
       their weight gradients, and end at a stage i <= l with those left there
           sum f in (k, j] + W_j b_l + sum b in [i, j] + (c i + 1) w_i

Where M <= W_k + 1 there are no pairs, and j = k in both turns. Exact for equal stages, and where all passes of a stage
are long in the same proportion and M is more than P (1F1B), at least 1.5 P (ZB-H1) or 2.5 P (ZB-2p). Elsewhere the
longest of these chains is short of the simulation, never above: by 3 % where a stage's passes differ by 30 % each way,
and 10 % with fewer micro-batches.

Where stages don't wait for one another at the end of a step, each starts the next one when it is done (section 4
there), so what counts is the longest that any stage takes from its own first pass to its last: less sum f in [0, i).
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.costmodels.schedule.stage_times import StageTimes, best_until


def chain_s(
    times: StageTimes, total: FloatArray, pipeline: IntArray, *, slack: int = 1, together: bool = True
) -> FloatArray:
    """Give the seconds of all micro-batches, [layouts].

    Args:
        times: the stages, of one chunk each; for 1F1B without weight gradients of their own.
        total: micro-batches of a step, [layouts].
        pipeline: stages, [layouts].
        slack: c above.
        together: stages wait for one another at the end of a step.

    """
    forward_s, backward_s, weight_s = times.forward_s[0], times.backward_s[0], times.weight_s[0]
    forward_until_s, backward_until_s = times.until_s(forward_s), times.until_s(backward_s)
    warm, delay = slack * (pipeline - 1 - times.stage), slack * times.stage
    reached_s = forward_until_s + np.minimum(warm, total - 1) * best_until(forward_s)
    returned_s = times.best_from(reached_s + backward_until_s) - backward_until_s
    ends_s = (total - np.maximum(total - 1 - delay, 0)) * weight_s - backward_until_s + backward_s
    if not together:
        ends_s = ends_s - forward_until_s + forward_s
    drain = _Drain(backward_s=backward_s, weight_s=weight_s, delay=delay, total=total)
    drained_s = backward_until_s + drain.longest_s(best_until(ends_s), first=np.maximum(total - 1 - warm, 0))
    turned_s = times.best_from(drained_s + forward_until_s) - forward_until_s
    pairs = total - warm - 1
    pairs_s = pairs * (forward_s + backward_s) + np.maximum(pairs - delay, 0) * weight_s
    return times.best(np.where(pairs > 0, returned_s + pairs_s + turned_s, reached_s + drained_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drain:
    """Backward passes of a stage after the last forward pass.

    backward_s, weight_s, delay: by how many micro-batches the weight gradients are put off, [turns, layouts].
    total: micro-batches, [layouts].
    """

    backward_s: FloatArray
    weight_s: FloatArray
    delay: IntArray
    total: FloatArray

    def longest_s(self, ends_s: FloatArray, *, first: FloatArray) -> FloatArray:
        """Give the longest of the passes left of a stage l and what follows it, for each turn j >= l, [turns, layouts].

        Args:
            ends_s: what follows l, as far as it doesn't depend on j.
            first: j's first micro-batch after its last forward pass; the last one's pass counts as its way back.

        """
        longest_s = np.full(ends_s.shape, -np.inf)
        for turn in range(len(ends_s)):
            left = first[turn:]
            gradients = np.maximum(self.total - 1 - np.maximum(left, self.delay[turn]), 0)
            waiting_s = (self.total - 1 - left) * self.backward_s[turn] + gradients * self.weight_s[turn]
            longest_s[turn:] = np.maximum(longest_s[turn:], waiting_s + ends_s[turn])
        return longest_s
