"""Layouts for another number of devices: as many replicas as there is room for, of a layout that is known.

A layout's replica of T x C x P devices stays as it is; D' = devices / (T C P) of them, rounded down, share the global
batch of B / b micro-batches, the first ones running one more where D' doesn't divide them. Every micro-batch counts
alike, whoever runs it, so that the gradient is the one of the whole batch as before.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout
from meshwright.planner.consistency import layout_contradictions
from meshwright.planner.plan_schema import Inputs, ReplicaBatch
from meshwright.planner.replica_batches import shared_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A layout, and the micro-batches of its replicas; None where all run the same number."""

    layout: Layout
    batches: tuple[ReplicaBatch, ...] | None

    def sequences(self, global_batch: int) -> int:
        """Give how many sequences the busiest replica runs in a step."""
        if self.batches is None:
            return global_batch // self.layout.data_parallel
        return self.layout.micro_batch * max(batch.micro_batches for batch in self.batches)


def shapes(layouts: Sequence[Layout], inputs: Inputs) -> tuple[Shape, ...]:
    """Give the distinct shapes of some layouts on the devices of inputs' cluster, in order, that are legal there."""
    found = (_fitted(layout, inputs) for layout in layouts)
    return tuple(dict.fromkeys(shape for shape in found if shape is not None))


def variants(layout: Layout) -> Iterator[Layout]:
    """Give a layout, and those with fewer expert ranks and smaller micro-batches: replicas come in smaller steps then.

    Expert ranks are halved, again and again; micro-batches are of any number of sequences below.
    """
    halves = [layout.expert_parallel >> power for power in range(layout.expert_parallel.bit_length())]
    whole = [half for power, half in enumerate(halves) if half << power == layout.expert_parallel]
    for expert in whole:
        for micro_batch in range(layout.micro_batch, 0, -1):
            yield replace(layout, expert_parallel=expert, micro_batch=micro_batch)


def _fitted(layout: Layout, inputs: Inputs) -> Shape | None:
    """Give a layout with as many replicas as there is room for; None where there's none, or it breaks a rule."""
    each = layout.tensor_parallel * layout.context_parallel * layout.pipeline_parallel
    total, rest = divmod(inputs.job.global_batch, layout.micro_batch)
    replicas = min(inputs.cluster.entry.devices // each, total)
    experts = layout.expert_parallel * layout.expert_tensor_parallel
    whole = experts // math.gcd(experts, layout.tensor_parallel * layout.context_parallel)
    replicas = replicas // whole * whole
    if rest or not replicas:
        return None
    resized = _sharded(replace(layout, data_parallel=replicas), before=layout.data_parallel * layout.context_parallel)
    batches = shared_out(total, replicas)
    shape = Shape(layout=resized, batches=None if len(batches) == 1 else batches)
    fits = _fills(resized, min(batch.micro_batches for batch in batches), even=shape.batches is None)
    broken = any(layout_contradictions("layout", resized, inputs, even=shape.batches is None))
    return shape if fits and not broken else None


def _sharded(layout: Layout, *, before: int) -> Layout:
    """Shard over all replicas where that was so, else over as many as divide them."""
    replicas = layout.data_parallel * layout.context_parallel
    if layout.zero_shard == before:
        zero = replicas if layout.zero_stage else 1
    else:
        zero = math.gcd(layout.zero_shard, replicas)
    gradient, parameter = (
        None if shard is None else math.gcd(shard, zero) for shard in (layout.gradient_shard, layout.parameter_shard)
    )
    backward = layout.backward_shard
    return replace(
        layout,
        zero_shard=zero,
        gradient_shard=gradient,
        parameter_shard=parameter,
        backward_shard=None if backward is None else math.gcd(backward, parameter or zero),
    )


def _fills(layout: Layout, least: int, *, even: bool) -> bool:
    """Tell whether each replica has the micro-batches that its schedule takes, `least` of them at the least.

    Interleaving takes them in blocks that are no shorter than the pipeline; all of them alike where replicas are.
    """
    stages = layout.pipeline_parallel
    if stages == 1:
        return True
    if layout.schedule is Schedule.INTERLEAVED:
        return least % stages == 0 if even else least >= stages
    if layout.schedule in (Schedule.DUAL_PIPE, Schedule.DUAL_PIPE_V):
        return least >= 2 * stages and (even or layout.schedule is Schedule.DUAL_PIPE_V)
    return least >= stages or layout.schedule in (Schedule.GPIPE, Schedule.ONE_F_ONE_B)
