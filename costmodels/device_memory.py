"""Peak memory of the worst rank: states, activations in flight, logits, buffers; then slack and context."""

import numpy as np

from meshwright.costmodels.activations import layer_activations
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import ACTIVATION_BYTES, attention_products, mlp_products, tokens_of
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.prediction import MemoryPrediction
from meshwright.costmodels.schedule import held_micro_batches, micro_batches
from meshwright.costmodels.sharding import dense_sharding, expert_sharding
from meshwright.costmodels.stage_table import StageTable
from meshwright.costmodels.state import (
    PARAMETER_BYTES,
    StageParameters,
    padded_vocabulary,
    stage_parameters,
    state_bytes,
)
from meshwright.costmodels.transformer import Layer


def peak_memory(job: Job, layouts: LayoutTable, stages: StageTable) -> MemoryPrediction:
    """Predict the peak memory of the worst rank of each layout, given its distinct stages.

    The peak is either at the loss, beside the logits, or in a layer's backward pass, beside its working set.
    """
    parameters = stage_parameters(job, layouts, stages)
    parts = state_bytes(job, layouts, parameters)
    parts["activations"] = _kept_bytes(job, layouts, stages)
    logits = stages.last * _logits_bytes(job, layouts)[:, np.newaxis]
    working = _working_bytes(job, layouts, stages)
    parts["logits"] = np.where(logits >= working, logits, 0.0)
    parts["working_set"] = np.where(logits < working, working, 0.0)
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


def _kept_bytes(job: Job, layouts: LayoutTable, stages: StageTable) -> FloatArray:
    """Give what the micro-batches in flight keep for their backward passes, [layouts, stages]."""
    held = held_micro_batches(layouts, stages.index, total=micro_batches(job.global_batch, layouts))
    embedded = ACTIVATION_BYTES * job.model.hidden * tokens_of(job, layouts).held
    kept = stages.first * embedded[:, np.newaxis]
    for kind, layer in enumerate(job.model.layer_kinds):
        kept = kept + stages.layers[:, :, kind] * layer_activations(job, layer, layouts).kept[:, np.newaxis]
    return held * kept


def _working_bytes(job: Job, layouts: LayoutTable, stages: StageTable) -> FloatArray:
    """Give what the backward pass of one layer needs beside what was kept, of the neediest layer, [layouts, stages].

    That is what it computes again, and, where products don't add to the gradients themselves, its largest weight
    gradient: as it is computed, and in the format of accumulation.
    """
    needed = np.zeros(stages.index.shape)
    for kind, layer in enumerate(job.model.layer_kinds):
        activations = layer_activations(job, layer, layouts)
        beside = np.maximum(activations.whole - activations.kept, 0.0)
        if not job.stack.fused_accumulation:
            beside = beside + (PARAMETER_BYTES + job.stack.gradient_bytes) * _largest_weight(job, layer, layouts)
        needed = np.where(stages.layers[:, :, kind] > 0, np.maximum(needed, beside[:, np.newaxis]), needed)
    return needed


def _largest_weight(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    products = attention_products(job, layer.attention, layouts) + mlp_products(job, layer.mlp, layouts)
    largest: FloatArray = np.max([product.count * product.columns * product.inner for product in products], axis=0)
    return largest


def _logits_bytes(job: Job, layouts: LayoutTable) -> FloatArray:
    tokens = tokens_of(job, layouts).computed
    vocabulary = padded_vocabulary(job, layouts) / layouts.tensor_parallel
    return job.stack.logits_bytes * tokens * vocabulary * (1 + job.model.mtp_layers)


def _gathered_bytes(job: Job, layouts: LayoutTable, stages: StageTable, parameters: StageParameters) -> FloatArray:
    """Give what passes hold whole of what is sharded between them, [layouts, stages].

    Where parameters are sharded those are two layers' (in work, and prefetched), where gradients are, one layer's.
    """
    layers = np.maximum(stages.layers.sum(axis=2), 1)
    gathered = np.zeros(parameters.dense.shape)
    for count, sharding in (
        (parameters.dense, dense_sharding(job, layouts)),
        (parameters.experts, expert_sharding(job, layouts)),
    ):
        held_bytes = np.where(sharding.parameters > 1, 2 * PARAMETER_BYTES, 0)
        held_bytes = held_bytes + np.where(sharding.gradients > 1, job.stack.reduce_bytes, 0)
        gathered = gathered + held_bytes * count / layers
    return gathered
