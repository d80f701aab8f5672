"""DeepSpeed: ZeRO-Offload, ZeRO-Infinity, twin-flow ratios, and the fields of Deep Optimizer States.

A ratio is of stage 3 alone, where the first int((1 - ratio) x S) of S subgroups stay on the device, whatever sizes they
have (runtime/zero/stage3.py of 0.19). Subgroups are whole tensors in a row of sub_group_size parameters at least: at
the size of a layer's largest tensor there are the most of them that are still alike. Shares are those of so many first
subgroups, and the ratio that is emitted is half a subgroup below, so that nothing is lost to rounding.
On drives are all states of all subgroups, or none.
Activations are kept, or whole layers computed again, whose inputs stay or leave (cpu_checkpointing).
Deep Optimizer States' own DeepSpeed also streams every so manieth subgroup (`prefetch_optimizer_gap`), with overlap;
that of others refuses such keys.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from meshwright.costmodels.layout import Layout
from meshwright.planner.offload.baselines import ALL_ON_DEVICE, ALL_ON_HOST, STRIDES
from meshwright.planner.offload.decision import Choice, Decision
from meshwright.planner.offload.optimizer_law import Shares
from meshwright.planner.offload.problem import INPUT, Problem
from meshwright.planner.offload.targets.candidate import Candidate
from meshwright.planner.offload.tensors import first_shares, subgroups
from meshwright.planner.offload.uniform import checkpointed, decided, kept

ALL_ON_DRIVES = Shares(cpu=np.ones(1), streamed=np.zeros(1), resident=np.zeros(1), nvme=np.ones(1))
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
            for shares, overlapped in _optimizers(problem, stage, strides=strides):
                decision = decided(problem, choices, streamed=streamed, whole=True, overlapped=overlapped)
                yield Candidate(decision=decision, shares=shares)


def zero_stage(layout: Layout) -> int:
    """Give the stage that is run: on one rank, where nothing is shared, stage 3 costs nothing and can do the most."""
    return 3 if layout.world_size == 1 else layout.zero_stage


def _optimizers(problem: Problem, stage: int, *, strides: bool) -> Iterator[tuple[Shares, bool]]:
    yield ALL_ON_DEVICE, True
    if stage >= 1:
        yield ALL_ON_HOST, False
    if stage < 3 or not problem.optimizer.tensors:
        return
    resident = first_shares(own_subgroups(problem))
    yield Shares(cpu=1 - resident, streamed=np.zeros_like(resident), resident=resident), False
    if problem.host.nvme_bytes:
        yield ALL_ON_DRIVES, False
    if strides:
        stride, first = np.repeat(STRIDES, len(resident)), np.tile(resident, len(STRIDES))
        streamed = (1 - first) / stride
        yield Shares(cpu=1 - first - streamed, streamed=streamed, resident=first), True


def subgroup_size(problem: Problem) -> int:
    """Give the parameters that a subgroup has at least: as many as the largest tensor of a layer."""
    return math.floor(max(problem.optimizer.tensors[1:-1]))


def own_subgroups(problem: Problem) -> tuple[float, ...]:
    """Give the parameters of each subgroup of a rank."""
    return subgroups(problem.optimizer.tensors, subgroup_size(problem))


def settings(problem: Problem, decision: Decision, layout: Layout, words: tuple[str, ...] = ()) -> dict[str, Any]:  # noqa: ARG001
    """Give the keys of the configuration that a decision adds to, or replaces."""
    shares = decision.shares
    host = float(shares.cpu) + float(shares.streamed)
    zero: dict[str, Any] = {"stage": zero_stage(layout)}
    if host:
        zero |= {
            "sub_group_size": subgroup_size(problem),
            "offload_optimizer": _optimizer(problem, shares),
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


def _optimizer(problem: Problem, shares: Shares) -> dict[str, Any]:
    device = {"device": "nvme", "nvme_path": NVME_PATH, "pipeline_read": True, "pipeline_write": True}
    settings: dict[str, Any] = {**(device if shares.nvme else {"device": "cpu"}), "pin_memory": True}
    if shares.resident:
        first = first_shares(own_subgroups(problem))
        number = int(np.argmin(np.abs(first - float(shares.resident))))
        settings["ratio"] = round(1 - (number + 0.5) / (len(first) - 1), 6)
    if shares.streamed:
        host = float(shares.cpu) + float(shares.streamed)
        settings |= {"prefetch_optimizer": 1, "prefetch_optimizer_gap": round(host / float(shares.streamed))}
    return settings


def resident_subgroups(ratio: float, subgroups: int) -> int:
    """Give how many subgroups stay on the device under a ratio, as DeepSpeed counts them."""
    return int((1 - ratio) * subgroups)
