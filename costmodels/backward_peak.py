"""What the backward pass needs beside the states, at its peak: at the loss, or in one layer.

Behind the last forward pass, and before anything is freed, all activations of the micro-batches in flight are there.
The last stage then holds its logits; every stage, one layer at a time, what that layer computes again and what its
gradients take as they are made.
"""

import numpy as np

from meshwright.costmodels.activations import input_bytes, is_narrow, layer_activations
from meshwright.costmodels.context_messages import gathered_bytes
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import ACTIVATION_BYTES, attention_products, mlp_products, tokens_of
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.matmul import Matmul
from meshwright.costmodels.parameter_bytes import PARAMETER_BYTES, gradient_bytes, reduced_bytes
from meshwright.costmodels.parameters import layer_parameters
from meshwright.costmodels.recompute import recomputed_share
from meshwright.costmodels.schedule import held_micro_batches, micro_batches
from meshwright.costmodels.sharding import dense_sharding, expert_sharding
from meshwright.costmodels.stage_table import StageTable
from meshwright.costmodels.state import StageParameters, local_vocabulary
from meshwright.costmodels.transformer import Layer


def backward_parts(
    job: Job, layouts: LayoutTable, stages: StageTable, parameters: StageParameters
) -> dict[str, FloatArray]:
    """Give what the backward pass needs beside the states at its peak, [layouts, stages] a cause."""
    logits = stages.last * loss_bytes(job, layouts)[:, np.newaxis]
    working = working_bytes(job, layouts, stages)
    return {
        "activations": kept_bytes(job, layouts, stages),
        "logits": np.where(logits >= working, logits, 0.0),
        "working_set": np.where(logits < working, working, 0.0),
        "gathered_parameters": _gathered_bytes(job, layouts, stages, parameters),
        "quantised_parameters": _quantised_bytes(job, layouts, stages),
    }


def _quantised_bytes(job: Job, layouts: LayoutTable, stages: StageTable) -> FloatArray:
    """Give the narrow copies of the layers' weights, as they are and transposed, [layouts, stages].

    They last from the first micro-batch of a step to its last; narrow parameters are their own copies.
    """
    total = np.zeros(stages.index.shape)
    if not is_narrow(job) or job.stack.narrow_parameters:
        return total
    for kind, layer in enumerate(job.model.layer_kinds):
        count = layer_parameters(job.model, layer)
        weights = (count.attention_sharded + count.mlp_sharded) / layouts.tensor_parallel
        weights = weights + count.experts / (layouts.expert_parallel * layouts.expert_tensor_parallel)
        total = total + stages.layers[:, :, kind] * 2 * input_bytes(job) * weights[:, np.newaxis]
    return total


def kept_bytes(job: Job, layouts: LayoutTable, stages: StageTable) -> FloatArray:
    """Give what the micro-batches in flight keep for their backward passes, [layouts, stages]."""
    held = held_micro_batches(layouts, stages.index, total=micro_batches(job.global_batch, layouts))
    embedded = ACTIVATION_BYTES * job.model.hidden * tokens_of(job, layouts).held
    outputs = job.stack.keeps_stage_outputs & ~stages.last
    kept = (stages.first + outputs.astype(float)) * embedded[:, np.newaxis]
    share = recomputed_share(layouts, stages)
    for kind, layer in enumerate(job.model.layer_kinds):
        activations = layer_activations(job, layer, layouts)
        again = share * stages.recomputed[:, :, kind]
        kept = kept + again * activations.kept[:, np.newaxis]
        kept = kept + (stages.layers[:, :, kind] - again) * activations.whole[:, np.newaxis]
    return np.asarray(held * kept)


def working_bytes(job: Job, layouts: LayoutTable, stages: StageTable) -> FloatArray:
    """Give what the backward pass of one layer needs beside what was kept, of the neediest layer, [layouts, stages].

    That is what it computes again, gathered keys and values, and, where gradients have tensors of their own, its
    largest weight gradient: as it is computed, of all experts of a rank at once, and in the format of accumulation, one
    by one. Where gradients are sharded that is among what is gathered.
    """
    whole_gradients = dense_sharding(job, layouts).gradients[:, 0] == 1
    needed = np.zeros(stages.index.shape)
    for kind, layer in enumerate(job.model.layer_kinds):
        activations = layer_activations(job, layer, layouts)
        again = np.maximum(activations.whole - activations.kept, 0.0)[:, np.newaxis]
        beside = np.where(stages.recomputed[:, :, kind] > 0, again, 0.0)
        gathered = gathered_bytes(job, layer.attention, layouts)[:, np.newaxis]
        beside = beside + np.where(stages.layers[:, :, kind] > 0, gathered, 0.0)
        if _has_gradient_tensors(job):
            gradient = _largest_weight_gradient_bytes(job, layer, layouts) * whole_gradients
            beside = beside + np.where(stages.layers[:, :, kind] > 0, gradient[:, np.newaxis], 0.0)
        needed = np.maximum(needed, beside)
    return needed


def _products(job: Job, layer: Layer, layouts: LayoutTable) -> tuple[Matmul, ...]:
    return attention_products(job, layer.attention, layouts) + mlp_products(job, layer.mlp, layouts)


def _largest_weight_gradient_bytes(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    gradients = [
        (PARAMETER_BYTES * product.count + gradient_bytes(job)) * product.columns * product.inner
        for product in _products(job, layer, layouts)
    ]
    return np.asarray(np.max(gradients, axis=0))


def _largest_weight(job: Job, layer: Layer, layouts: LayoutTable) -> FloatArray:
    weights = [product.columns * product.inner for product in _products(job, layer, layouts)]
    return np.asarray(np.max(weights, axis=0))


def loss_bytes(job: Job, layouts: LayoutTable) -> FloatArray:
    """Give what the loss needs: its logits, and the head's weight gradient where that has a tensor of its own."""
    tokens = tokens_of(job, layouts).computed
    vocabulary = local_vocabulary(job, layouts)
    logits = job.stack.logits_bytes * tokens * vocabulary * (1 + job.model.mtp_layers)
    return logits + PARAMETER_BYTES * vocabulary * job.model.hidden if _has_gradient_tensors(job) else logits


def _has_gradient_tensors(job: Job) -> bool:
    """Tell whether weight gradients have tensors of their own: real ones, or empty ones that autograd is handed."""
    return not job.stack.fused_accumulation or job.stack.dummy_gradients


def _gathered_bytes(job: Job, layouts: LayoutTable, stages: StageTable, parameters: StageParameters) -> FloatArray:
    """Give what passes hold whole of what is sharded between them, [layouts, stages].

    Where parameters are sharded those are two layers' (in work, and prefetched), where gradients are, one layer's.
    Where the stack gathers a layer in several messages, they are so many matrices of it.
    """
    layers = np.maximum(stages.layers.sum(axis=2), 1)
    gathered = np.zeros(parameters.dense.shape)
    for count, sharding in (
        (parameters.dense, dense_sharding(job, layouts)),
        (parameters.experts, expert_sharding(job, layouts)),
    ):
        held_bytes = np.where(sharding.parameters > 1, 2 * PARAMETER_BYTES, 0)
        held_bytes = held_bytes + np.where(sharding.gradients > 1, reduced_bytes(job), 0)
        each = count / layers
        if job.stack.gathers_per_layer > 1:
            largest = [_largest_weight(job, layer, layouts) for layer in job.model.layer_kinds]
            each = np.minimum(each, np.max(largest, axis=0)[:, np.newaxis])
        gathered = gathered + held_bytes * each
    return gathered
