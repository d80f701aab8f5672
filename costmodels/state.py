"""Parameters, gradients and optimizer states of each stage, and how ZeRO shards them (arXiv 1910.02054).

Tensor parallelism splits matrices, expert and expert tensor parallelism the experts. ZeRO shards over `zero_shard`
ranks of data and context parallelism; experts have fewer copies, so they are sharded over the smaller group of those:
optimizer states from stage 1, gradients from 2, parameters from 3.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.collectives import Group
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable
from meshwright.costmodels.parameters import (
    embedding_norm_parameters,
    final_norm_parameters,
    layer_parameters,
    position_parameters,
)
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


def data_group(layouts: LayoutTable) -> Group:
    """Give the ranks that hold the same dense parameters: data x context parallelism."""
    return Group(size=layouts.data_parallel * layouts.context_parallel, stride=layouts.tensor_parallel)


def expert_data_group(layouts: LayoutTable) -> Group:
    """Give the ranks that hold the same experts."""
    expert_ranks = layouts.expert_parallel * layouts.expert_tensor_parallel
    block = layouts.data_parallel * layouts.context_parallel * layouts.tensor_parallel
    return Group(size=np.maximum(block // expert_ranks, 1), stride=expert_ranks)


def shard_group(layouts: LayoutTable) -> Group:
    """Give the ranks that ZeRO shards dense parameters over."""
    return Group(size=np.minimum(layouts.zero_shard, data_group(layouts).size), stride=layouts.tensor_parallel)


def expert_shard_group(layouts: LayoutTable) -> Group:
    """Give the ranks that ZeRO shards experts over."""
    group = expert_data_group(layouts)
    return Group(size=np.minimum(layouts.zero_shard, group.size), stride=group.stride)


def shards(layouts: LayoutTable, group: Group, *, from_stage: int) -> FloatArray:
    """Give into how many parts something is cut that ZeRO shards from a stage on, [layouts, 1]."""
    return np.where(layouts.zero_stage >= from_stage, group.size, 1).astype(float)[:, np.newaxis]


def state_bytes(job: Job, layouts: LayoutTable, parameters: StageParameters) -> dict[str, FloatArray]:
    """Give the bytes of parameters, gradients, optimizer states on one rank of each stage, [layouts, stages].

    Where the stack keeps no 16-bit copy beside the master weights (FSDP), parameters are the fp32 shards themselves.
    Gradients accumulated in fp32 are 6 bytes where their 16-bit form stays (DeepSpeed's BF16 optimizer).
    """
    nothing = np.zeros(parameters.dense.shape)
    totals = {"parameters": nothing, "gradients": nothing, "optimizer": nothing}
    resident_bytes = PARAMETER_BYTES if job.stack.master_weights else MASTER_BYTES
    gradient_bytes = job.stack.gradient_bytes
    if job.stack.keeps_narrow_gradients and gradient_bytes > PARAMETER_BYTES:
        gradient_bytes += PARAMETER_BYTES
    optimizer_bytes = MOMENTS_BYTES + (MASTER_BYTES if job.stack.master_weights else 0)
    for count, group in (
        (parameters.dense, shard_group(layouts)),
        (parameters.experts, expert_shard_group(layouts)),
    ):
        totals["parameters"] = totals["parameters"] + resident_bytes * count / shards(layouts, group, from_stage=3)
        totals["gradients"] = totals["gradients"] + gradient_bytes * count / shards(layouts, group, from_stage=2)
        totals["optimizer"] = totals["optimizer"] + optimizer_bytes * count / shards(layouts, group, from_stage=1)
    return totals
