"""By how much the law of a schedule may be off its orders: 1 % where it claims to be exact, else what is known of it.

    GPipe                 1 %   any stages
    1F1B, ZB-H1, ZB-2p    1 %   more micro-batches than stages (1.5, 2.5 times as many), passes in proportion
                          3 %   passes out of proportion
                         10 %   fewer micro-batches
    interleaved           1 %   equal chunks between ends of their own, 3 stages and more, 2 micro-batches a stage
                          3 %   of two stages, or one micro-batch a stage
                          7 %   other even cuts
                         20 %   cuts that aren't even
    ZBV, DualPipe(V)      1 %   equal chunks, weight gradients < forward < backward passes, 2 micro-batches a stage
    V-Half, V-Min         2 %   the same; of two stages V-Half 7 %, V-Min 25 %
    all of these         12 %   chunks 30 % each way, or a head of up to two chunks, of 3 to 6 stages
                         20 %   other chunks, other stages, fewer micro-batches; V-Min of two stages 35 %

Laws have no messages inside their chains but for one lap of fill and drain. What of them is under way beside passes in
the other laps comes on top: 2 (V - 1) P messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from meshwright.catalog.schedule import Schedule

EXACT = 0.01
# How many micro-batches a stage the laws of single chunks are exact for.
ENOUGH = {Schedule.ONE_F_ONE_B: 1.0, Schedule.ZERO_BUBBLE_H1: 1.5, Schedule.ZERO_BUBBLE_2P: 2.5}
# Of equal chunks where the law isn't exact, of two stages and of more.
FOLDED = {Schedule.V_HALF: (0.07, 0.02), Schedule.V_MIN: (0.25, 0.02)}

Times = tuple[float, float, float]
"""Seconds of a forward pass, a backward pass and weight gradients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """A share of the pipeline's time, and in a few words what it is of."""

    share: float
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """What a tolerance depends on.

    chunks: passes of the model's chunks in order. even: the layers are cut as evenly as can be.
    under_way_s: the part of a message beside which stages compute.
    """

    schedule: Schedule
    chunks: Sequence[Times]
    stages: int
    count: int
    even: bool
    under_way_s: float = 0.0


def tolerance(pipeline: Pipeline, *, step_s: float) -> Tolerance:
    """Give by how much the law may be off, of a pipeline that takes so long."""
    if pipeline.stages == 1:
        return Tolerance(share=1e-6, because="one stage never waits")
    found = _of_law(pipeline)
    laps = 1 if pipeline.schedule is Schedule.DUAL_PIPE else len(pipeline.chunks) // pipeline.stages - 1
    messages = 2 * laps * pipeline.stages * pipeline.under_way_s / step_s
    if messages < 5e-5:
        return found
    return Tolerance(share=found.share + messages, because=f"{found.because}; {messages:.2%} of it for messages")


def _of_law(pipeline: Pipeline) -> Tolerance:
    if pipeline.schedule is Schedule.GPIPE:
        return Tolerance(share=EXACT, because="exact for any stages")
    if pipeline.schedule in ENOUGH:
        return _of_single_chunks(pipeline)
    if pipeline.schedule is Schedule.INTERLEAVED:
        return _of_rounds(pipeline)
    return _of_folds(pipeline)


def _of_single_chunks(pipeline: Pipeline) -> Tolerance:
    if pipeline.count <= ENOUGH[pipeline.schedule] * pipeline.stages:
        return Tolerance(share=0.10, because="few micro-batches")
    shares = [[part / sum(times) for part in times] for times in pipeline.chunks]
    if all(max(parts) - min(parts) <= 0.03 for parts in zip(*shares, strict=True)):
        return Tolerance(share=EXACT, because="exact for passes in proportion")
    return Tolerance(share=0.03, because="passes out of proportion")


def _of_rounds(pipeline: Pipeline) -> Tolerance:
    first, *middle, last = (sum(times) for times in pipeline.chunks)
    low, high = min(middle), max(middle)
    if high <= 1.01 * low and 0.5 * low <= first <= 1.1 * low and 0.5 * low <= last <= 3 * low:
        if pipeline.stages > 2 and pipeline.count >= 2 * pipeline.stages:
            return Tolerance(share=EXACT, because="exact for equal chunks between the ends")
        return Tolerance(share=0.03, because="two stages, or one micro-batch a stage")
    if pipeline.even:
        return Tolerance(share=0.07, because="chunks that differ by a layer")
    return Tolerance(share=0.20, because="a cut that isn't even")


def _of_folds(pipeline: Pipeline) -> Tolerance:
    sizes = [sum(times) for times in pipeline.chunks]
    mean = sum(sizes) / len(sizes)
    usual = pipeline.count >= 2 * pipeline.stages and _in_order(pipeline.chunks)
    if usual and max(sizes) <= 1.01 * min(sizes):
        few, many = FOLDED.get(pipeline.schedule, (EXACT, EXACT))
        return Tolerance(share=few if pipeline.stages == 2 else many, because="equal chunks")
    alike = all(0.7 * mean <= size <= 1.3 * mean for size in sizes[1:-1]) and max(sizes) <= 3 * mean
    if usual and alike and 3 <= pipeline.stages <= 6:
        return Tolerance(share=0.12, because="unequal chunks")
    if pipeline.schedule is Schedule.V_MIN and pipeline.stages == 2:
        return Tolerance(share=0.35, because="two stages")
    return Tolerance(share=0.20, because="chunks, stages or micro-batches unlike those of the law")


def _in_order(chunks: Sequence[Times]) -> bool:
    """Tell whether passes are as folded orders are made for: weight gradients < forward < backward passes."""
    forward_s, backward_s, weight_s = (sum(times[part] for times in chunks) for part in range(3))
    in_order = forward_s <= 1.02 * backward_s and 0.4 * forward_s <= weight_s <= 1.02 * forward_s
    return in_order and backward_s <= 1.8 * forward_s
