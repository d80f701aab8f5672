"""What is run without a plan, each at its best under the same laws, with all activations kept or all layers repeated.

full_recompute     everything on the device, every layer's forward pass again    arXiv 1604.06174
zero_offload       the optimizer on the host, without overlap                    arXiv 2101.06840
zero_infinity      parameters stream too, inputs of layers leave                 arXiv 2104.07857
twin_flow          the best ratio of the optimizer on the host, without overlap  DeepSpeed's Offload++
fixed_stride       the best stride of subgroups that stream, with overlap        arXiv 2410.21316
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from meshwright.planner.offload.decision import Choice, Decision
from meshwright.planner.offload.evaluation import Evaluation
from meshwright.planner.offload.optimizer_law import Shares
from meshwright.planner.offload.problem import SUBGROUPS, Problem
from meshwright.planner.offload.rounding import best_evaluated
from meshwright.planner.offload.uniform import checkpointed, decided, kept

STRIDES = tuple(range(2, 11))
RATIOS = np.arange(SUBGROUPS + 1) / SUBGROUPS
ALL_ON_DEVICE = Shares(cpu=np.zeros(1), streamed=np.zeros(1), resident=np.ones(1))
ALL_ON_HOST = Shares(cpu=np.ones(1), streamed=np.zeros(1), resident=np.zeros(1))
TWIN_FLOW = Shares(cpu=RATIOS, streamed=np.zeros_like(RATIOS), resident=1 - RATIOS)


def strided_shares() -> Shares:
    """Give the shares of every stride, at every ratio that isn't resident."""
    strides = np.repeat(STRIDES, len(RATIOS))
    ratio = np.tile(RATIOS, len(STRIDES))
    return Shares(cpu=ratio - ratio / strides, streamed=ratio / strides, resident=1 - ratio)


def baselines(problem: Problem) -> Mapping[str, Evaluation | None]:
    """Give the best of each baseline; None where it doesn't fit."""
    return {
        "full_recompute": _best(problem, [_repeated(problem)], ALL_ON_DEVICE),
        "zero_offload": _best(problem, _plain(problem), ALL_ON_HOST),
        "zero_infinity": _best(problem, _infinity(problem), ALL_ON_HOST),
        "twin_flow": _best(problem, _plain(problem), TWIN_FLOW),
        "fixed_stride": _best(problem, [decided(problem, kept(problem)), _repeated(problem)], strided_shares()),
    }


def _repeated(problem: Problem) -> Decision:
    return decided(problem, checkpointed(problem), whole=True)


def _plain(problem: Problem) -> Iterator[Decision]:
    yield decided(problem, kept(problem), overlapped=False)
    yield decided(problem, checkpointed(problem), whole=True, overlapped=False)


def _infinity(problem: Problem) -> Iterator[Decision]:
    if problem.streamable:
        left = checkpointed(problem, inputs=Choice.OFFLOAD)
        for choices in (kept(problem), checkpointed(problem), left):
            yield decided(problem, choices, streamed=True, whole=True, overlapped=False)


def _best(problem: Problem, decisions: Iterable[Decision], shares: Shares) -> Evaluation | None:
    tried = [best_evaluated(problem, decision, shares) for decision in decisions]
    return min((one for one in tried if one is not None), key=lambda one: one.step_time_s, default=None)
