"""What a rank of a stage holds at its peak: as the plan's cost model says, and as the reference launcher runs it.

The launcher's peak is at one of three moments, which the cost model doesn't hold apart, so that it stays on the safe
side:

    loss    parameters, moments, kept activations, the logits' fp32 forms; of what is sharded the head alone is gathered
    layer   parameters, moments, kept activations, what a layer makes beside them, two layers gathered, one's gradients
    end     parameters, moments, gradients, sharded as these are

Gradients are there from the second micro-batch's backward pass on, beside activations of one micro-batch less at the
most. What else differs is known, too:

    logits       whole on each tensor rank, as the launcher gathers them; a plan shares them out. Log-probabilities stay
                 from the loss to its backward pass (4 bytes each), which makes their gradients and the logits' (4 + 4);
                 GPipe has those of all micro-batches. A stage of a pipeline keeps its outputs: logits themselves, too
    inputs       with cut tokens, products keep their gathered inputs, which a plan's gather again (arXiv 2205.05198,
                 section 4.2.2)
    messages     a stage has a buffer for each message of a step from its neighbours
    workspace    none: the tracker counts tensors
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.backward_peak import working_bytes
from meshwright.costmodels.device_memory import StageMemory, stage_memory
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import ACTIVATION_BYTES, tokens_of
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.recompute import FULL, recomputed_share
from meshwright.costmodels.schedule import held_micro_batches, micro_batches
from meshwright.costmodels.sharding import dense_sharding
from meshwright.costmodels.stage_table import StageTable, stage_table
from meshwright.costmodels.state import local_vocabulary
from meshwright.planner.job_inputs import job_of
from meshwright.planner.ledger.ledger import MOMENTS
from meshwright.planner.ledger.workload import Workload
from meshwright.planner.memory_oracle.held import Held
from meshwright.planner.plan_schema import Plan

CAUSES = {
    "parameters": ("parameters", "master_weights", "gathered_parameters", "quantised_parameters"),
    "gradients": ("gradients", "step_gradients"),
    "optimizer": ("moments",),
    "activations": ("activations", "logits", "working_set"),
    "workspace": ("workspace",),
}
# A layer's products with gathered inputs: those of attention and those of the MLP.
GATHERED_INPUTS = 2
LOG_PROBABILITY_BYTES, LOGIT_GRADIENT_BYTES = 4, 4 + 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """A stage's first rank: what the plan says, what the launcher is to hold at its peak, and why that differs."""

    stage: int
    rank: int
    planned: Held
    expected: Held
    reasons: tuple[str, ...]


def expectations(plan: Plan, workload: Workload) -> tuple[Expectation, ...]:
    """Give what is expected of each distinct stage, by the number of the first that is like it.

    workload: what PyTorch runs of the plan, perhaps fewer micro-batches than the plan's.
    """
    layout = plan.layout.layout()
    job, table = job_of(plan.inputs, devices=layout.world_size), LayoutTable.of([layout])
    stages = stage_table(job.model, table)
    memory, working = stage_memory(job, table, stages), working_bytes(job, table, stages)
    return tuple(
        _Stage(
            job=job,
            layouts=table,
            stages=stages,
            memory=memory,
            working=working,
            column=int(column),
            workload=workload,
        ).expectation()
        for column in np.flatnonzero(stages.multiplicity[0])
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """A distinct stage of the one layout of a table: `column` of what the cost model says of it, [1, stages] each."""

    job: Job
    layouts: LayoutTable
    stages: StageTable
    memory: StageMemory
    working: FloatArray
    column: int
    workload: Workload

    def expectation(self) -> Expectation:
        states, backward = self._of(self.memory.states), self._of(self.memory.backward)
        moments = self._moments(_held(states), backward)
        when = max(moments, key=lambda name: moments[name].total)
        return Expectation(
            stage=self._number,
            rank=self._number * (self.workload.layout.world_size // self.workload.layout.pipeline_parallel),
            planned=max(_held(states), _held(backward), key=lambda held: held.total),
            expected=moments[when],
            reasons=(f"the launcher's peak is {when}", *self._reasons()),
        )

    def _moments(self, states: Held, backward: Mapping[str, float]) -> dict[str, Held]:
        """Give what the launcher holds at each moment that may be its peak."""
        end = replace(states, workspace=0.0, gradients=states.optimizer / MOMENTS)
        moments = {"after the last backward pass": end}
        for done in range(min(self.workload.micro_batches, 2)):
            passes = replace(states, workspace=0.0, gradients=states.gradients if done else 0.0)
            in_flight = min(self._in_flight, self.workload.micro_batches - done)
            kept = backward["activations"] * in_flight / self._in_flight
            kept += in_flight * self._kept_layers * self._layer_inputs + self._messages(in_flight)
            layer = replace(
                passes,
                parameters=passes.parameters + backward["gathered_parameters"],
                activations=kept + float(self.working[0, self.column]) + self._layer_inputs,
            )
            loss = replace(
                passes,
                parameters=passes.parameters + self._gathered_head,
                activations=kept + self._logits(in_flight),
            )
            when = "of the first micro-batch" if not done else "of a later micro-batch"
            moments[f"in a layer's backward pass {when}"] = layer
            if self.stages.last[0, self.column]:
                moments[f"at the loss {when}, where the head alone is gathered"] = loss
        return moments

    def _reasons(self) -> Iterator[str]:
        if self.workload.micro_batches == 1:
            yield "there are no gradients before the backward pass of the only micro-batch"
        if self.layouts.tensor_parallel[0] > 1 and self.stages.last[0, self.column]:
            yield "it gathers logits, whole on each tensor rank"
        if self._layer_inputs:
            yield "its products keep their gathered inputs, where the plan's gather them again"
        if self.workload.layout.pipeline_parallel > 1:
            yield f"its stages have a buffer for each message, here of {self.workload.micro_batches} micro-batches"
        yield "the tracker counts tensors, and no workspace of matrix libraries"

    def _of(self, by_cause: Mapping[str, FloatArray]) -> dict[str, float]:
        return {cause: float(values[0, self.column]) for cause, values in by_cause.items()}

    def _logits(self, in_flight: float) -> float:
        layout = self.workload.layout
        piped = layout.pipeline_parallel > 1
        waiting = in_flight if piped and layout.schedule is Schedule.GPIPE else 1
        kept = LOG_PROBABILITY_BYTES + (self.workload.element_bytes if piped else 0)
        logits = layout.micro_batch * self.workload.local_sequence * self.workload.model.vocab
        return logits * (waiting * kept + LOGIT_GRADIENT_BYTES)

    def _messages(self, in_flight: float) -> float:
        """Give the buffers of tokens and of gradients, but those of tokens that are among what is kept."""
        held = {chunk.index for chunk in self.workload.chunks(self._number)}
        before = sum(index > 0 and index - 1 not in held for index in held)
        after = sum(index < self.workload.last_chunk and index + 1 not in held for index in held)
        count = self.workload.micro_batches
        message_bytes = self.workload.local_tokens * self.workload.model.hidden * self.workload.element_bytes
        return message_bytes * (before * (count - in_flight) + after * count)

    @property
    def _number(self) -> int:
        return int(self.stages.index[0, self.column])

    @property
    def _in_flight(self) -> float:
        total = micro_batches(self.job.global_batch, self.layouts)
        return float(held_micro_batches(self.layouts, self.stages.index, total=total)[0, self.column])

    @property
    def _gathered_head(self) -> float:
        sharded = dense_sharding(self.job, self.layouts).parameters[0, 0] > 1
        vocabulary = float(local_vocabulary(self.job, self.layouts)[0])
        return self.workload.element_bytes * vocabulary * self.job.model.hidden if sharded else 0.0

    @property
    def _layer_inputs(self) -> float:
        """What the products of a layer keep of their gathered inputs more than norms do of their outputs."""
        tokens = tokens_of(self.job, self.layouts)
        beyond = float(tokens.computed[0] - tokens.held[0])
        return GATHERED_INPUTS * ACTIVATION_BYTES * self.job.model.hidden * beyond

    @property
    def _kept_layers(self) -> float:
        """Layers that aren't recomputed."""
        layers = float(self.stages.layers[0, self.column].sum())
        if self.layouts.recompute[0] == FULL:
            share = float(recomputed_share(self.layouts, self.stages)[0, self.column])
            layers -= share * float(self.stages.recomputed[0, self.column].sum())
        return layers


def _held(by_cause: Mapping[str, float]) -> Held:
    return Held(**{of: sum(by_cause.get(cause, 0.0) for cause in causes) for of, causes in CAUSES.items()})
