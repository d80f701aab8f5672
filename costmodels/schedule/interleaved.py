"""Megatron's interleaved schedule (arXiv 2104.04473, section 2.2), as the longest chain of passes.

Chunk c of V on stage s is the model's chunk c P + s. Passes are numbered alike on all stages, P micro-batches a chunk,
V chunks a block, backward from the last chunk: N = M V of each kind. Stage s runs W_s = (V - 1) P + 2 (P - 1 - s)
forward passes, then one forward and one backward pass in turn, then backward passes. Pass n feeds pass n of the next
stage, and that of the last stage pass n + P of the first. The longest chain, of those that

    1  run forward passes as far as pass W_j of a stage j, which is a walk over a grid of chunks by stages: along a
       stage the P passes of a chunk, or on to the next stage by one; turn, and come back to a stage k <= j
    2  stay on k for its pairs of passes; or, from the last stage, follow the slowest stage of each chunk upstream and
       begin again at the last stage in the next block, which the pass that goes round makes up for
    3  leave k as they came, in reversed time: the same walk over backward passes

Where N <= W_k + 1 there are no pairs. Exact, for M >= 2 P and P >= 3, where all chunks of the pipeline are equal but
the first (from half as long to a tenth longer) and the last (to three times as long), that have embedding and head; of
two stages within 3 %. Cuts whose chunks differ by a layer are within 3 % of the simulation for chunks of two layers and
more (98 % of them within 1 %), and 7 % for those that mix one and two.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.costmodels.schedule.stage_times import StageTimes, best_until


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    """When passes of one kind end if nothing else holds them up, [turns, layouts].

    last_s, next_s: the first pass of the last chunk of the first block, and the one that would follow the block.
    whole_s: the last pass of the first block.
    """

    last_s: FloatArray
    next_s: FloatArray
    whole_s: FloatArray


def interleaved_s(times: StageTimes, total: FloatArray, pipeline: IntArray) -> FloatArray:
    """Give the seconds of all micro-batches, [layouts], of stages of several chunks each.

    Args:
        times: the stages; backward passes and weight gradients are one.
        total: micro-batches of a step, [layouts].
        pipeline: stages, [layouts].

    """
    forward_s, backward_s = times.forward_s, times.backward_s + times.weight_s
    chunks = len(forward_s)
    behind = (2 * (pipeline - 1 - times.stage)).astype(np.float64)
    passes = np.minimum(behind, total * chunks - 1 - (chunks - 1) * pipeline)
    pairs = total * chunks - 1 - (chunks - 1) * pipeline - behind
    pairs_s = _detours_s(times, forward_s, backward_s, total, pipeline)
    alone_s, chains_s = np.zeros(behind.shape), pairs_s
    for here_s, back_s in ((forward_s, backward_s), (backward_s, forward_s)):
        reached_s = _reached_s(_walk(times, here_s, pipeline), here_s, passes, pipeline)
        back_until_s = times.until_s(back_s[-1])
        alone_s = alone_s + reached_s
        chains_s = chains_s + times.best_from(reached_s + back_until_s) - back_until_s
        chains_s = chains_s + total * here_s.sum(axis=0) - _first_s(here_s, behind + 1, pipeline)
    return times.best(np.where(pairs > 0, chains_s, alone_s))


def _first_s(here_s: FloatArray, beyond: FloatArray, pipeline: IntArray) -> FloatArray:
    """Give the seconds of a stage's first (V - 1) P + `beyond` passes, [turns, layouts], `beyond` up to 2 P."""
    before = pipeline * here_s[:-1].sum(axis=0)
    first_s: FloatArray = (
        before + np.minimum(beyond, pipeline) * here_s[-1] + np.maximum(beyond - pipeline, 0.0) * here_s[0]
    )
    return first_s


def _walk(times: StageTimes, here_s: FloatArray, pipeline: IntArray) -> _Walk:
    """Walk over chunks and turns; each step takes the later of what its stage did and what feeds it."""
    chunks = len(here_s)
    first_s, ends_s = np.zeros(here_s.shape[1:]), np.zeros(here_s.shape[1:])
    last_s, whole_s = first_s, ends_s
    for number in range(chunks + 1):
        pass_s = here_s[number % chunks]
        begun_s = first_s[-1] + pass_s[0]
        first_s = np.maximum(ends_s + pass_s, 0.0)
        first_s[0] = np.maximum(first_s[0], begun_s)
        _carry_down(times, first_s, pass_s)
        begun_s = ends_s[-1] + pass_s[0]
        ends_s = first_s + (pipeline - 1) * pass_s
        ends_s[0] = np.maximum(ends_s[0], begun_s)
        _carry_down(times, ends_s, pass_s)
        if number == chunks - 1:
            last_s, whole_s = first_s, ends_s
    return _Walk(last_s=last_s, next_s=first_s, whole_s=whole_s)


def _reached_s(walk: _Walk, here_s: FloatArray, beyond: FloatArray, pipeline: IntArray) -> FloatArray:
    """Give when pass (V - 1) P + `beyond` of each turn ends, [turns, layouts], `beyond` below 2 P."""
    in_block = np.minimum(walk.last_s + beyond * best_until(here_s[-1]), walk.whole_s)
    after = walk.next_s + (beyond - pipeline) * best_until(here_s[0])
    return np.where(beyond < pipeline, in_block, after)


def _detours_s(
    times: StageTimes, forward_s: FloatArray, backward_s: FloatArray, total: FloatArray, pipeline: IntArray
) -> FloatArray:
    """Give what the last stage's chain gains, block by block, on the slowest stage of each chunk, [turns, layouts]."""
    chunks = len(forward_s)
    at_last = (times.steps > 0) & (times.stage == pipeline - 1)
    own_s = pipeline * np.where(at_last, (forward_s + backward_s).sum(axis=0), 0.0).max(axis=0)
    behind = (2 * (pipeline - 1 - times.stage) + 1).astype(np.float64)
    first_s = np.where(at_last, backward_s[-1], -np.inf)
    for number in range(chunks):
        pass_s = backward_s[chunks - 1 - number]
        _carry_up(times, first_s, pass_s)
        if number < chunks - 1:
            ends_s = first_s + (pipeline - 1) * pass_s + _beside_s(forward_s, number, behind, pipeline)
            _carry_up(times, ends_s, pass_s)
            first_s = ends_s + backward_s[chunks - 2 - number]
    gained_s = (total // pipeline - 1) * np.maximum(first_s[0] - own_s, 0.0)
    return np.where(at_last, gained_s, 0.0)


def _carry_down(times: StageTimes, when_s: FloatArray, pass_s: FloatArray) -> None:
    """Pass what each turn has, in place, on to the turns downstream of it."""
    for turn in range(1, len(when_s)):
        np.maximum(when_s[turn], when_s[turn - 1] + times.steps[turn] * pass_s[turn], out=when_s[turn])


def _carry_up(times: StageTimes, when_s: FloatArray, pass_s: FloatArray) -> None:
    """Pass what each turn has, in place, on to the turns upstream of it."""
    for turn in range(len(when_s) - 2, -1, -1):
        np.maximum(when_s[turn], when_s[turn + 1] + times.steps[turn + 1] * pass_s[turn], out=when_s[turn])


def _beside_s(forward_s: FloatArray, number: int, behind: FloatArray, pipeline: IntArray) -> FloatArray:
    """Give the seconds of the forward passes among which a stage runs the backward passes of its chunk `number`.

    Those are `behind` passes later than chunk number - 1 of the forward passes begins, modulo the chunks.
    """
    before, after = np.maximum(pipeline - behind, 0.0), np.maximum(behind - pipeline, 0.0)
    shares = (before, pipeline - before - after, after)
    total = np.zeros(behind.shape)
    for step, share in enumerate(shares):
        total += share * forward_s[(number - 1 + step) % len(forward_s)]
    return total
