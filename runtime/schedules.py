"""A step's order of micro-batches: PyTorch's pipeline schedules, or one micro-batch after another."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed import pipelining
from torch.distributed.pipelining import schedules

from meshwright.catalog.schedule import Schedule
from meshwright.planner.ledger.workload import FLOAT_BYTES, Workload
from meshwright.runtime.meshes import Meshes
from meshwright.runtime.parallelize import Part
from meshwright.runtime.sharding import before_backward

Loss = Callable[[Tensor, Tensor], Tensor]
SINGLE: Mapping[Schedule, type] = {
    Schedule.GPIPE: pipelining.ScheduleGPipe,
    Schedule.ONE_F_ONE_B: pipelining.Schedule1F1B,
}
SEVERAL: Mapping[Schedule, type] = {
    Schedule.INTERLEAVED: pipelining.ScheduleInterleaved1F1B,
    Schedule.ZERO_BUBBLE_H1: pipelining.ScheduleInterleavedZeroBubble,
    Schedule.ZERO_BUBBLE_V: pipelining.ScheduleZBVZeroBubble,
    Schedule.DUAL_PIPE_V: schedules.ScheduleDualPipeV,
}


class Passes(Protocol):
    """All forward and backward passes of a step."""

    def __call__(self, words: Tensor, targets: Tensor) -> Tensor | None:
        """Run them on a replica's batch, [sequences, tokens]; give the loss where this rank has the head."""


class OneByOne:
    """Without a pipeline: forward and backward pass of each micro-batch in turn."""

    def __init__(self, part: Part, workload: Workload, loss: Loss) -> None:
        self.module, self.workload, self.loss = part.module, workload, loss

    def __call__(self, words: Tensor, targets: Tensor) -> Tensor:
        """Run them."""
        count, total = self.workload.micro_batches, torch.zeros((), device=words.device)
        for number, (own, wanted) in enumerate(zip(words.chunk(count), targets.chunk(count), strict=True)):
            before_backward(self.module, self.workload, last=number == count - 1)
            loss = self.loss(self.module(own), wanted)
            loss.backward()
            total += loss.detach()
        return total


class Pipelined:
    """A schedule of torch.distributed.pipelining over the stages' chunks."""

    def __init__(self, parts: tuple[Part, ...], workload: Workload, meshes: Meshes, loss: Loss) -> None:
        self.first, self.last = (any(getattr(part.chunk, end) for part in parts) for end in ("first", "last"))
        stages = [_stage(part, workload, meshes) for part in parts]
        kind = workload.layout.schedule
        if kind in SINGLE:
            self.schedule = SINGLE[kind](stages[0], workload.micro_batches, loss_fn=loss, scale_grads=False)
        else:
            self.schedule = SEVERAL[kind](stages, workload.micro_batches, loss_fn=loss, scale_grads=False)
            _hold_gathered(self.schedule)

    def __call__(self, words: Tensor, targets: Tensor) -> Tensor | None:
        """Run them."""
        losses: list[Tensor] = []
        inputs = (words,) if self.first else ()
        target = {"target": targets, "losses": losses} if self.last else {}
        self.schedule.step(*inputs, return_outputs=False, **target)
        return torch.stack([loss.detach() for loss in losses]).sum() if self.last else None


def passes_of(parts: tuple[Part, ...], workload: Workload, meshes: Meshes | None, loss: Loss) -> Passes:
    """Give the passes of a rank's chunks."""
    if workload.layout.pipeline_parallel == 1 or meshes is None:
        return OneByOne(parts[0], workload, loss)
    return Pipelined(parts, workload, meshes, loss)


def _hold_gathered(schedule: schedules._PipelineScheduleRuntime) -> None:
    """Keep parameters gathered from a step's first pass to its last; PyTorch lets go of all but three chunks' else."""
    for rank, actions in schedule.pipeline_order_with_comms.items():
        places = list(enumerate(actions))
        gathered = _first_by_stage(places, schedules.UNSHARD)
        released = _first_by_stage(places[::-1], schedules.RESHARD)
        schedule.pipeline_order_with_comms[rank] = [
            action
            for place, action in places
            if action.computation_type not in (schedules.UNSHARD, schedules.RESHARD) or place in gathered | released
        ]


def _first_by_stage(places: list[tuple[int, Any]], kind: object) -> set[int]:
    """Give where the first action of a kind is for each stage."""
    found: dict[int, int] = {}
    for place, action in places:
        if action.computation_type is kind:
            found.setdefault(action.stage_index, place)
    return set(found.values())


def _stage(part: Part, workload: Workload, meshes: Meshes) -> pipelining.PipelineStage:
    """Make a stage whose messages' shapes are known, so that no pass is run to find them out."""
    dtype = torch.float32 if workload.element_bytes == FLOAT_BYTES else torch.bfloat16
    model, sequences = workload.model, workload.layout.micro_batch
    local = workload.local_tokens // sequences
    with torch.device("meta"):
        words = torch.empty(sequences, workload.local_sequence, dtype=torch.int64)
        tokens = torch.empty(sequences, local, model.hidden, dtype=dtype, requires_grad=True)
        logits = torch.empty(sequences, workload.local_sequence, model.vocab, dtype=dtype, requires_grad=True)
    return pipelining.PipelineStage(
        part.module,
        part.chunk.index,
        workload.last_chunk + 1,
        next(part.module.parameters()).device,
        input_args=words if part.chunk.first else tokens,
        output_args=logits if part.chunk.last else tokens,
        group=meshes.group("pipeline"),
    )
