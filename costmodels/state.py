"""Parameters, gradients and optimizer states of each stage, as one rank holds them.

Tensor parallelism splits matrices, expert and expert tensor parallelism the experts; what is left is sharded as
sharding.py says.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable
from meshwright.costmodels.parameters import (
    embedding_norm_parameters,
    final_norm_parameters,
    layer_parameters,
    position_parameters,
)
from meshwright.costmodels.sharding import dense_sharding, expert_sharding
from meshwright.costmodels.stage_table import StageTable

PARAMETER_BYTES = 2
MASTER_BYTES = 4
MOMENTS_BYTES = 8
VOCABULARY_MULTIPLE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class StageParameters:
    """Parameters on one rank of each distinct stage before ZeRO, [layouts, stages]: dense ones and routed experts."""

    dense: FloatArray
    experts: FloatArray


def padded_vocabulary(job: Job, layouts: LayoutTable) -> IntArray:
    """Give the vocabulary padded to a multiple of 128 x tensor_parallel, as Megatron pads it."""
    multiple = VOCABULARY_MULTIPLE * layouts.tensor_parallel
    return -(-job.model.vocab // multiple) * multiple


def stage_parameters(job: Job, layouts: LayoutTable, stages: StageTable) -> StageParameters:
    """Count the parameters on one rank of each distinct stage."""
    model = job.model
    tensor = layouts.tensor_parallel[:, np.newaxis]
    expert_ranks = (layouts.expert_parallel * layouts.expert_tensor_parallel)[:, np.newaxis]
    dense = np.zeros(stages.index.shape)
    experts = np.zeros(stages.index.shape)
    for kind, layer in enumerate(model.layer_kinds):
        count = layer_parameters(model, layer)
        local = (count.attention_sharded + count.mlp_sharded) / tensor + count.replicated
        dense = dense + stages.layers[:, :, kind] * local
        experts = experts + stages.layers[:, :, kind] * count.experts / expert_ranks
    word_table = model.hidden * padded_vocabulary(job, layouts)[:, np.newaxis] / tensor
    embedding = word_table + position_parameters(model) + embedding_norm_parameters(model)
    own_head = ~stages.first | (not model.tied_embeddings)
    head = word_table * own_head + final_norm_parameters(model)
    dense = dense + stages.first * embedding + stages.last * head
    if model.mtp_layers:
        dense = dense + stages.last * model.mtp_layers * 2.0 * model.hidden**2 / tensor
    return StageParameters(dense=dense, experts=experts)


def state_bytes(job: Job, layouts: LayoutTable, parameters: StageParameters) -> dict[str, FloatArray]:
    """Give the bytes of parameters, gradients, optimizer states on one rank of each stage, [layouts, stages].

    Where the stack keeps no 16-bit copy beside the master weights (FSDP), parameters are fp32 shards like the
    optimizer's, and a 16-bit copy where the passes of a step share them less widely. What is kept less widely sharded
    from forward to backward passes alone is a copy too. Gradients accumulated in fp32 are 6 bytes where their 16-bit
    form stays (DeepSpeed's BF16 optimizer).
    """
    nothing = np.zeros(parameters.dense.shape)
    totals = {"parameters": nothing, "gradients": nothing, "optimizer": nothing}
    gradient_bytes = job.stack.gradient_bytes
    if job.stack.keeps_narrow_gradients and gradient_bytes > PARAMETER_BYTES:
        gradient_bytes += PARAMETER_BYTES
    optimizer_bytes = MOMENTS_BYTES + (MASTER_BYTES if job.stack.master_weights else 0)
    for count, sharding in (
        (parameters.dense, dense_sharding(job, layouts)),
        (parameters.experts, expert_sharding(job, layouts)),
    ):
        copy_bytes = PARAMETER_BYTES / sharding.parameters
        if not job.stack.master_weights:
            copy_bytes = np.where(sharding.parameters < sharding.optimizer, copy_bytes, 0.0)
            copy_bytes = copy_bytes + MASTER_BYTES / sharding.optimizer
        secondary = sharding.backward < sharding.parameters
        copy_bytes = copy_bytes + np.where(secondary, PARAMETER_BYTES / sharding.backward, 0.0)
        totals["parameters"] = totals["parameters"] + count * copy_bytes
        totals["gradients"] = totals["gradients"] + gradient_bytes * count / sharding.gradients
        totals["optimizer"] = totals["optimizer"] + optimizer_bytes * count / sharding.optimizer
    return totals
