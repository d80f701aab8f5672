"""DeepSpeed: ZeRO-Offload, ZeRO-Infinity, twin-flow ratios, and the fields of Deep Optimizer States.

A ratio is of stage 3 alone, where int((1 - ratio) x S) of S subgroups stay on the device (runtime/zero/stage3.py of
0.19): the ratio that is emitted is half a subgroup below the one that is meant, so that nothing is lost to rounding.
Activations are kept, or whole layers computed again, whose inputs stay or leave (cpu_checkpointing).
Deep Optimizer States' own DeepSpeed also streams every so manieth subgroup (`prefetch_optimizer_gap`), with overlap;
that of others refuses such keys.
"""

import math
from collections.abc import Iterator
from typing import Any

from meshwright.costmodels.layout import Layout
from meshwright.planner.offload.baselines import ALL_ON_DEVICE, ALL_ON_HOST, TWIN_FLOW, strided_shares
from meshwright.planner.offload.decision import Choice, Decision
from meshwright.planner.offload.optimizer_law import Shares
from meshwright.planner.offload.problem import INPUT, SUBGROUPS, Problem
from meshwright.planner.offload.targets.candidate import Candidate
from meshwright.planner.offload.uniform import checkpointed, decided, kept

NVME_PATH = "/local_nvme"
AIO = {
    "block_size": 1048576,
    "queue_depth": 8,
    "intra_op_parallelism": 1,
    "single_submit": False,
    "overlap_events": True,
}


def candidates(problem: Problem, layout: Layout, *, strides: bool = False) -> Iterator[Candidate]:
    """Give all that DeepSpeed can be told for a layout; `strides`: Deep Optimizer States' can."""
    stage = zero_stage(layout)
    for choices in (kept(problem), checkpointed(problem), checkpointed(problem, inputs=Choice.OFFLOAD)):
        for streamed in (False, True) if stage == 3 and problem.streamable else (False,):
            for shares, overlapped in _optimizers(stage, strides=strides):
                decision = decided(problem, choices, streamed=streamed, whole=True, overlapped=overlapped)
                yield Candidate(decision=decision, shares=shares)


def zero_stage(layout: Layout) -> int:
    """Give the stage that is run: on one rank, where nothing is shared, stage 3 costs nothing and can do the most."""
    return 3 if layout.world_size == 1 else layout.zero_stage


def _optimizers(stage: int, *, strides: bool) -> Iterator[tuple[Shares, bool]]:
    yield ALL_ON_DEVICE, True
    if stage >= 1:
        yield ALL_ON_HOST, False
    if stage == 3:
        yield TWIN_FLOW, False
    if stage == 3 and strides:
        yield strided_shares(), True


def settings(problem: Problem, decision: Decision, layout: Layout, words: tuple[str, ...] = ()) -> dict[str, Any]:  # noqa: ARG001
    """Give the keys of the configuration that a decision adds to, or replaces."""
    shares = decision.shares
    host = float(shares.cpu) + float(shares.streamed)
    zero: dict[str, Any] = {"stage": zero_stage(layout)}
    if host:
        zero |= {
            "sub_group_size": math.ceil(problem.optimizer.parameters / SUBGROUPS),
            "offload_optimizer": _optimizer(shares, host),
        }
    if decision.streamed.any():
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    document: dict[str, Any] = {"zero_optimization": zero}
    if shares.nvme:
        document["aio"] = dict(AIO)
    if (decision.choices == Choice.RECOMPUTE).any():
        document["activation_checkpointing"] = {
            "cpu_checkpointing": bool((decision.choices[:, INPUT] == Choice.OFFLOAD).any()),
            "number_checkpoints": len(problem.layers),
        }
    return document


def _optimizer(shares: Shares, host: float) -> dict[str, Any]:
    device = {"device": "nvme", "nvme_path": NVME_PATH, "pipeline_read": True, "pipeline_write": True}
    settings: dict[str, Any] = {**(device if shares.nvme else {"device": "cpu"}), "pin_memory": True}
    if host < 1:
        settings["ratio"] = round((round(host * SUBGROUPS) - 0.5) / SUBGROUPS, 6)
    if shares.streamed:
        settings |= {"prefetch_optimizer": 1, "prefetch_optimizer_gap": round(host / float(shares.streamed))}
    return settings


def resident_subgroups(ratio: float, subgroups: int) -> int:
    """Give how many subgroups stay on the device under a ratio, as DeepSpeed counts them."""
    return int((1 - ratio) * subgroups)
