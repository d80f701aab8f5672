"""The cost model's two entry points: step time and peak memory of many layouts at once."""

from dataclasses import fields

import numpy as np

from meshwright.costmodels.accumulation import accumulation_s
from meshwright.costmodels.device_memory import STEADY, peak_memory
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, LayerTime, Pass, layer_time
from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable, numbered
from meshwright.costmodels.model_flop import model_flop
from meshwright.costmodels.pipeline_messages import pipeline_communication_s
from meshwright.costmodels.prediction import MemoryPrediction, Reading, TimePrediction
from meshwright.costmodels.recompute import recomputed_layers
from meshwright.costmodels.schedule import bubble_s, micro_batches
from meshwright.costmodels.stage_table import StageTable, stage_table
from meshwright.costmodels.state import stage_parameters
from meshwright.costmodels.synchronisation import (
    StageWork,
    exposed_communication_s,
    optimizer_s,
    tied_embedding_s,
)
from meshwright.costmodels.vocabulary import embedding_s, head_s

# What a layer's time depends on; layouts that differ elsewhere share its evaluation.
LAYER_COLUMNS = (
    "tensor_parallel",
    "sequence_parallel",
    "context_parallel",
    "context_method",
    "expert_parallel",
    "expert_tensor_parallel",
    "micro_batch",
    "recompute",
)


def predict_memory(job: Job, layouts: LayoutTable, *, reading: Reading = STEADY) -> MemoryPrediction:
    """Predict the peak memory of each layout: of the worst rank, unless another reading is asked for."""
    return peak_memory(job, layouts, stage_table(job.model, layouts), reading=reading)


def predict_time(job: Job, layouts: LayoutTable) -> TimePrediction:
    """Predict the step time of each layout.

    A step is the slowest stage's work on all micro-batches, the bubble in which it waits for the other stages, what
    isn't hidden of the replicas' communication, and the optimizer.

    Raises MissingData where the device has no peak for the job's precision.
    """
    stages = stage_table(job.model, layouts)
    distinct, back = _distinct_layer_rows(layouts)
    kinds = [_taken(layer_time(job, layer, distinct), back) for layer in job.model.layer_kinds]
    embedding = embedding_s(job, layouts)
    head = head_s(job, layouts)
    total = micro_batches(job.global_batch, layouts)
    parameters = stage_parameters(job, layouts, stages)
    accumulation = accumulation_s(job, layouts, parameters, total=total)
    share = recomputed_layers(layouts, stages)
    work = _stage_work(stages, kinds, embedding, head, beside=accumulation, recomputed=share)
    per_micro_batch = work.forward_s + work.backward_s
    slowest = stages.slowest(per_micro_batch)
    rows = np.arange(len(layouts))
    layers = stages.layers[rows, slowest]
    breakdown = {
        str(cause): total * sum(layers[:, kind] * _both(time, cause) for kind, time in enumerate(kinds))
        for cause in Cause
    }
    breakdown["recompute"] = (
        total * share[rows, slowest] * sum(layers[:, kind] * _sum(time.recompute) for kind, time in enumerate(kinds))
    )
    breakdown["embedding_and_head"] = total * (
        stages.first[rows, slowest] * (embedding[0] + embedding[1]) + stages.last[rows, slowest] * (head[0] + head[1])
    )
    breakdown["gradient_accumulation"] = total * accumulation[rows, slowest]
    breakdown["bubble"] = bubble_s(
        layouts,
        forward_s=work.forward_s,
        backward_s=work.backward_s,
        weight_gradient_s=_weight_gradient_s(stages, kinds),
        multiplicity=stages.multiplicity,
        total=total,
    )
    breakdown["pipeline_communication"] = pipeline_communication_s(
        job, layouts, total, per_micro_batch[rows, slowest] / layouts.virtual_pipeline
    )
    gradients_s, gathers_s = exposed_communication_s(job, layouts, stages, parameters, work, total=total)
    step_s = optimizer_s(job, layouts, parameters)
    last_to_end = stages.slowest(gradients_s + gathers_s + step_s)
    breakdown["gradient_communication"] = gradients_s[rows, last_to_end] + tied_embedding_s(job, layouts)
    breakdown["parameter_communication"] = gathers_s[rows, last_to_end]
    breakdown["optimizer"] = step_s[rows, last_to_end]
    breakdown["step_overhead"] = np.full(len(layouts), job.stack.step_overhead)
    return TimePrediction(breakdown=breakdown, model_flop=model_flop(job))


def _distinct_layer_rows(layouts: LayoutTable) -> tuple[LayoutTable, IntArray]:
    """Give the layouts that differ in what a layer's time depends on, and for each layout which of those it is."""
    code = np.zeros(len(layouts), dtype=np.int64)
    for name in LAYER_COLUMNS:
        column = getattr(layouts, name)
        _, code = numbered(code * (column.max(initial=0) + 1) + column)
    first = np.zeros(code.max(initial=-1) + 1, dtype=np.int64)
    first[code[::-1]] = np.arange(len(code))[::-1]
    return layouts.take(first), code


def _taken(time: LayerTime, rows: IntArray) -> LayerTime:
    return LayerTime(
        **{
            item.name: {
                cause: np.broadcast_to(seconds, rows.max(initial=0) + 1)[rows]
                for cause, seconds in getattr(time, item.name).items()
            }
            for item in fields(time)
        }
    )


def _sum(part: Pass) -> FloatArray:
    return np.asarray(sum(part.values()))


def _both(time: LayerTime, cause: Cause) -> FloatArray:
    return time.forward[cause] + time.backward[cause]


def _stage_work(
    stages: StageTable,
    kinds: list[LayerTime],
    embedding: tuple[FloatArray, FloatArray],
    head: tuple[FloatArray, FloatArray],
    *,
    beside: FloatArray,
    recomputed: FloatArray,
) -> StageWork:
    """Add up the layers of each distinct stage; recomputation and accumulation are part of the backward pass.

    beside: what the backward pass does outside the layers; recomputed: the share of layers that it computes again.
    """
    forward = stages.first * embedding[0][:, np.newaxis] + stages.last * head[0][:, np.newaxis]
    backward = stages.first * embedding[1][:, np.newaxis] + stages.last * head[1][:, np.newaxis] + beside
    for kind, time in enumerate(kinds):
        layers = stages.layers[:, :, kind]
        forward = forward + layers * _sum(time.forward)[:, np.newaxis]
        backward = backward + layers * _sum(time.backward)[:, np.newaxis]
        backward = backward + recomputed * layers * _sum(time.recompute)[:, np.newaxis]
    return StageWork(forward_s=forward, backward_s=backward)


def _weight_gradient_s(stages: StageTable, kinds: list[LayerTime]) -> FloatArray:
    """Give the seconds of weight gradients, half of the backward products, of each distinct stage."""
    total = np.zeros(stages.index.shape)
    for kind, time in enumerate(kinds):
        total = total + stages.layers[:, :, kind] * 0.5 * time.backward[Cause.MATMUL][:, np.newaxis]
    return total
