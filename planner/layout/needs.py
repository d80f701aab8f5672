"""What layers need of a device, by kind, and what a device has for them: what lower bounds are made of."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.accumulation import accumulation_s
from meshwright.costmodels.activations import layer_activations
from meshwright.costmodels.backward_peak import loss_bytes
from meshwright.costmodels.device_memory import outside_bytes
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import layer_time
from meshwright.costmodels.layout import RECOMPUTES, FloatArray, LayoutTable
from meshwright.costmodels.predict import distinct_layer_rows
from meshwright.costmodels.schedule import micro_batches
from meshwright.costmodels.state import StageParameters, layer_on_rank, state_bytes, vocabulary_on_rank


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNeeds:
    """What a layer of one kind takes, [layouts].

    count: how many the model has. state_bytes: of its states.
    layer_s: seconds of both passes of a micro-batch, and of adding up its gradients.
    kept_bytes, again_s: what it keeps of a micro-batch, and how long computing the rest again takes, by RECOMPUTES.
    """

    count: int
    layer_s: FloatArray
    state_bytes: FloatArray
    kept_bytes: tuple[FloatArray, ...]
    again_s: tuple[FloatArray, ...]


def layer_counts(job: Job) -> list[int]:
    """Count the layers of each kind; MTP modules are layers of the last one, as in stage_table.py."""
    model = job.model
    counts = [model.kind_of_layer.count(kind) for kind in range(len(model.layer_kinds))]
    counts[model.kind_of_layer[-1]] += model.mtp_layers
    return counts


def layer_needs(job: Job, layouts: LayoutTable) -> Iterator[LayerNeeds]:
    """Give what a layer of each kind takes; the layouts' own recomputation doesn't matter."""
    distinct, back = distinct_layer_rows(layouts)
    recomputed = [replace(distinct, recompute=np.full(len(distinct), code)) for code in range(len(RECOMPUTES))]
    for count, layer in zip(layer_counts(job), job.model.layer_kinds, strict=True):
        times = [layer_time(job, layer, table) for table in recomputed]
        both_s = np.asarray(sum(times[0].forward.values()) + sum(times[0].backward.values()))
        parameters = layer_on_rank(job, layer, layouts)
        yield LayerNeeds(
            count=count,
            layer_s=both_s[back] + accumulated_s(job, layouts, parameters),
            state_bytes=lasting_bytes(job, layouts, parameters),
            kept_bytes=tuple(layer_activations(job, layer, table).kept[back] for table in recomputed),
            again_s=tuple(np.asarray(sum(time.recompute.values()))[back] for time in times),
        )


def accumulated_s(job: Job, layouts: LayoutTable, parameters: StageParameters) -> FloatArray:
    """Give the least seconds that adding up the gradients of some parameters adds to a micro-batch, [layouts].

    DualPipe's stages have twice the parameters for half of the micro-batches, so that it adds the fewest.
    """
    total = micro_batches(job.global_batch, layouts)
    if Schedule.DUAL_PIPE in job.stack.schedules:
        total = np.maximum(total / 2.0, 1.0)
    return accumulation_s(job, layouts, parameters, total=total)[:, 0]


def heaviest_of(needs: tuple[LayerNeeds, ...]) -> int:
    """Give the kind whose layers have the largest states."""
    return max(range(len(needs)), key=lambda kind: float(needs[kind].state_bytes.sum()))


def lasting_bytes(job: Job, layouts: LayoutTable, parameters: StageParameters) -> FloatArray:
    """Give the bytes of states that are there in the backward pass too, [layouts]."""
    states = state_bytes(job, layouts, parameters)
    total: FloatArray = np.sum([held for name, held in states.items() if name != "step_gradients"], axis=0)[:, 0]
    return total


def room_bytes(job: Job, layouts: LayoutTable, limit: int) -> FloatArray:
    """Give what a device has for layers, [layouts]; without a pipeline it also has the vocabulary and the loss."""
    allocated = (limit - outside_bytes(job, layouts)) / (1.0 + job.stack.allocator_slack)
    room = allocated - job.cluster.device.calibration.workspace
    ends = lasting_bytes(job, layouts, vocabulary_on_rank(job, layouts)) + loss_bytes(job, layouts)
    return np.maximum(np.where(layouts.pipeline_parallel == 1, room - ends, room), 0.0)


def twig_bytes(job: Job, twigs: LayoutTable) -> FloatArray:
    """Give the least that the fullest device of a twig's layouts holds, as nvidia-smi counts, [twigs].

    Each stage holds its layers' states and what they keep of one micro-batch; the fullest no less than their mean.
    """
    layers = np.sum(
        [need.count * (need.state_bytes + np.min(need.kept_bytes, axis=0)) for need in layer_needs(job, twigs)], 0
    )
    allocated = job.cluster.device.calibration.workspace + layers / twigs.pipeline_parallel
    return np.asarray(outside_bytes(job, twigs) + (1.0 + job.stack.allocator_slack) * allocated)
