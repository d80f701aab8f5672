"""Peak memory of the worst rank: states, activations in flight, logits, buffers; then slack and context."""

import numpy as np

from meshwright.costmodels.activations import layer_activations
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import ACTIVATION_BYTES, tokens_of
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.prediction import MemoryPrediction
from meshwright.costmodels.schedule import held_micro_batches, micro_batches
from meshwright.costmodels.stage_table import StageTable
from meshwright.costmodels.state import (
    PARAMETER_BYTES,
    StageParameters,
    padded_vocabulary,
    stage_parameters,
    state_bytes,
)

# 16-bit logits, their fp32 copy, and the fp32 softmax that becomes their gradient.
LOGITS_BYTES = 10


def peak_memory(job: Job, layouts: LayoutTable, stages: StageTable) -> MemoryPrediction:
    """Predict the peak memory of the worst rank of each layout, given its distinct stages."""
    parameters = stage_parameters(job, layouts, stages)
    parts = state_bytes(job, layouts, parameters)
    parts["activations"], parts["working_set"] = _activations_bytes(job, layouts, stages)
    parts["logits"] = stages.last * _logits_bytes(job, layouts)[:, np.newaxis]
    parts["gathered_parameters"] = _gathered_bytes(job, layouts, stages, parameters)
    total = np.where(stages.multiplicity > 0, sum(parts.values()), -1.0)
    worst = np.argmax(total, axis=1)
    rows = np.arange(len(layouts))
    breakdown = {name: value[rows, worst] for name, value in parts.items()}
    reserved = total[rows, worst] * (1.0 + job.stack.allocator_slack)
    return MemoryPrediction(
        breakdown=breakdown,
        reserved_bytes=reserved,
        nvidia_smi_bytes=reserved + job.cluster.device.calibration.context,
    )


def _activations_bytes(job: Job, layouts: LayoutTable, stages: StageTable) -> tuple[FloatArray, FloatArray]:
    """Give what the micro-batches in flight keep, and what the one in work needs beside that, [layouts, stages]."""
    held = held_micro_batches(layouts, stages.index, total=micro_batches(job.global_batch, layouts))
    kept = np.zeros(stages.index.shape)
    working = np.zeros(stages.index.shape)
    for kind, layer in enumerate(job.model.layer_kinds):
        activations = layer_activations(job, layer, layouts)
        present = stages.layers[:, :, kind] > 0
        kept = kept + stages.layers[:, :, kind] * activations.kept[:, np.newaxis]
        beside = np.maximum(activations.whole - activations.kept, 0.0)[:, np.newaxis]
        working = np.where(present, np.maximum(working, beside), working)
    embedding = stages.first * (ACTIVATION_BYTES * job.model.hidden * tokens_of(job, layouts).held)[:, np.newaxis]
    return held * (kept + embedding), working


def _logits_bytes(job: Job, layouts: LayoutTable) -> FloatArray:
    tokens = tokens_of(job, layouts).computed
    vocabulary = padded_vocabulary(job, layouts) / layouts.tensor_parallel
    return LOGITS_BYTES * tokens * vocabulary * (1 + job.model.mtp_layers)


def _gathered_bytes(job: Job, layouts: LayoutTable, stages: StageTable, parameters: StageParameters) -> FloatArray:
    """ZeRO-3 holds two layers' parameters (in work, and prefetched) and one layer's gradients, whole."""
    layers = np.maximum(stages.layers.sum(axis=2), 1)
    one_layer = (parameters.dense + parameters.experts) / layers
    gathered = (2 * PARAMETER_BYTES + job.stack.reduce_bytes) * one_layer
    return np.where(layouts.zero_stage[:, np.newaxis] == 3, gathered, 0.0)
