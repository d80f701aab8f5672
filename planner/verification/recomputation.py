"""What a step computes again is as much of its forward passes as the layout says.

Full recomputation of a layer repeats its forward pass with its messages (arXiv 1604.06174). Where it is of R layers of
each of a stage's c chunks, n layers in all, and forward passes take F seconds, E of them for embedding and head:

    recomputed = min(R c / n, 1) (F - E)      0 <= E <= what the breakdown has of embedding and head, both ways

Software that spares a part's last product repeats less: that is half of the part's products at most, for queries are as
many values as attention's output, and up is as large as down; and the sums of tensor ranks behind it, T seconds of all
messages. So half of F - E - T is repeated at least there.

Stages that recompute unlike numbers of layers of their chunks (recompute_split) aren't looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from meshwright.planner.plan_schema import LayoutSection
from meshwright.planner.verification.check import ROUNDING, Failures


@dataclass(frozen=True, slots=True, kw_only=True)
class Busiest:
    """The stage that the breakdown is of: its layers, its chunks, and the seconds of its forward passes in a step.

    more_layers: of multi-token prediction, which are in its last chunk or in another stage's.
    """

    layers: int
    more_layers: int
    chunks: int
    forward_s: float


def recomputation(layout: LayoutSection, stage: Busiest, told: Mapping[str, float], *, spares: bool) -> Failures:
    """Give the field of the layout that says something else than the breakdown does, and what.

    spares: the software doesn't repeat the last product of what it recomputes.
    """
    again_s = told.get("recompute", 0.0)
    least_s = max(stage.forward_s - told.get("embedding_and_head", 0.0), 0.0)
    if spares:
        least_s = 0.5 * max(least_s - told.get("tensor_communication", 0.0), 0.0)
    if str(layout.recompute) == "none":
        if again_s:
            yield "recompute", f"is none; the breakdown has {again_s:.9g} s of recomputation"
    elif again_s > stage.forward_s * (1 + ROUNDING):
        yield "recompute", f"takes {again_s:.9g} s, longer than the forward passes of {stage.forward_s:.9g} s"
    elif str(layout.recompute) == "full" and not layout.recompute_split:
        count = layout.recompute_layers
        chosen = stage.layers + stage.more_layers if count is None else count * stage.chunks
        least, most = min(chosen / (stage.layers + stage.more_layers), 1.0), min(chosen / stage.layers, 1.0)
        if not least * least_s * (1 - ROUNDING) <= again_s <= most * stage.forward_s * (1 + ROUNDING):
            share = again_s / stage.forward_s
            field, said = (
                ("recompute", "all layers") if count is None else ("recompute_layers", f"{count} of each chunk")
            )
            yield field, f"is of {said}; the step computes {share:.1%} of its forward passes again"
