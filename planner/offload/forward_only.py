"""Steps without backward passes: inference, and zeroth-order training, whose parameters stream layer by layer.

Zeroth-order training (arXiv 2305.17333) runs each micro-batch twice, with parameters moved a little one way and the
other, and keeps neither activations, gradients nor states. A layer is on the device for both of its runs (arXiv
2503.12668), and its updated parameters return while the next layer's come, on the link's other way, which they never
hold up. Of two micro-batches in a row, the second stands where a training step has its backward pass: the same flow
shops hold (pass_law.py), as far as layers are alike.
"""

from dataclasses import replace
from enum import StrEnum

import numpy as np

from meshwright.planner.offload.optimizer_law import OptimizerWork
from meshwright.planner.offload.problem import Problem


class Mode(StrEnum):
    """What a step is: training by gradients, without them, or none."""

    TRAINING = "training"
    ZEROTH_ORDER = "zeroth-order"
    INFERENCE = "inference"


RUNS = {Mode.ZEROTH_ORDER: 2, Mode.INFERENCE: 1}


def forward_only(problem: Problem, mode: Mode, *, head_s: float, gathered_s: float) -> Problem:
    """Give the problem of a step without backward passes.

    Args:
        problem: of a training step.
        mode: zeroth-order or inference.
        head_s: of the head's forward pass of a micro-batch, 0 on ranks without it.
        gathered_s: of a training step in which parameters are gathered and nothing else runs: half of it is left.

    """
    runs, layers, memory = RUNS[mode], problem.layers, problem.memory
    nothing = np.zeros_like(layers.kept_bytes)
    forward_s = runs * layers.forward_s
    # The slowest stage's forward pass has the share of it that this one's has.
    own_s = float((layers.forward_s + layers.backward_s).sum()) + problem.first_s + problem.middle_s + problem.last_s
    only_s = float(forward_s.sum()) + runs * (problem.first_s + head_s)
    return replace(
        problem,
        layers=replace(
            layers,
            forward_s=forward_s,
            backward_s=forward_s[::-1].copy(),
            kept_bytes=nothing,
            again_s=np.full_like(nothing, np.inf),
            drain_bytes=np.zeros(len(layers)),
        ),
        memory=replace(memory, gradients=0.0, drained=0.0, optimizer=0.0, step=0.0, beside=0.0, stream=0.0),
        optimizer=OptimizerWork(parameters=0.0, device_s=0.0),
        first_s=runs * problem.first_s,
        middle_s=runs * (head_s + problem.first_s),
        last_s=runs * head_s,
        passes=problem.passes / 2,
        slowest_s=2 * problem.slowest_s * only_s / own_s,
        other_s=runs * gathered_s / 2,
    )
