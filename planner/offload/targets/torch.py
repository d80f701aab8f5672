"""PyTorch: a policy of selective checkpointing a layer, as data, and torchao's CPUOffloadOptimizer.

Each layer keeps, moves or computes again each class of its own; the optimizer is all on the host or all on the device
(torchao.optim.CPUOffloadOptimizer), and parameters stay as they are sharded. Of several micro-batches that wrapper
sends each one's gradients, which still stay on the device: offload_gradients would drop what was added up.
"""

from dataclasses import replace
from typing import Any

from meshwright.planner.offload.decision import Choice, Decision
from meshwright.planner.offload.problem import CLASSES, Problem


def expressible(problem: Problem) -> Problem:
    """Give the problem as PyTorch has it: parameters don't stream, gradients stay where they are added up."""
    drained = problem.memory.drained if problem.passes <= 1 else 0.0
    return replace(problem, streamable=False, memory=replace(problem.memory, drained=drained))


def settings(problem: Problem, decision: Decision) -> dict[str, Any]:
    """Give the policy of each layer, and the optimizer's wrapper where there is one."""
    names = {Choice.KEEP: "save", Choice.OFFLOAD: "offload", Choice.RECOMPUTE: "recompute"}
    policy = [
        {
            str(name): names[Choice(int(choice))]
            for name, choice, size in zip(CLASSES, row, problem.layers.kept_bytes[layer], strict=True)
            if size > 0
        }
        for layer, row in enumerate(decision.choices)
    ]
    document: dict[str, Any] = {"checkpoint_policy": policy}
    if decision.shares.cpu:
        document["optimizer"] = {
            "class": "torchao.optim.CPUOffloadOptimizer",
            "optimizer_class": "torch.optim.AdamW",
            "offload_gradients": problem.memory.drained > 0,
            "fused": True,
        }
    return document
