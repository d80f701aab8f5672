"""Parameters, gradients and optimizer states of each stage, as one rank holds them.

Tensor parallelism splits matrices, expert and expert tensor parallelism the experts; what is left is sharded as
sharding.py says.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, LayoutTable
from meshwright.costmodels.parameter_bytes import MASTER_BYTES, PARAMETER_BYTES, parameter_bytes
from meshwright.costmodels.parameters import (
    embedding_norm_parameters,
    final_norm_parameters,
    layer_parameters,
    position_parameters,
)
from meshwright.costmodels.sharding import Sharding, dense_sharding, expert_sharding
from meshwright.costmodels.stage_table import StageTable

VOCABULARY_MULTIPLE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class StageParameters:
    """Parameters on one rank of each distinct stage before ZeRO, [layouts, stages]: dense ones and routed experts."""

    dense: FloatArray
    experts: FloatArray


def local_vocabulary(job: Job, layouts: LayoutTable) -> FloatArray:
    """Give a device's share of the vocabulary, which is padded to a multiple of 128 x tensor_parallel as Megatron's is.

    Vocabulary parallelism shares it over the stages too.
    """
    multiple = VOCABULARY_MULTIPLE * layouts.tensor_parallel
    share = -(-job.model.vocab // multiple) * VOCABULARY_MULTIPLE
    return np.where(layouts.vocabulary_parallel == 1, share / layouts.pipeline_parallel, share)


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
    word_table = model.hidden * local_vocabulary(job, layouts)[:, np.newaxis]
    embedding = word_table + position_parameters(model) + embedding_norm_parameters(model)
    own_head = ~stages.first | (not model.tied_embeddings)
    head = word_table * own_head + final_norm_parameters(model)
    dense = dense + stages.first * embedding + stages.last * head
    if model.mtp_layers:
        dense = dense + stages.last * model.mtp_layers * 2.0 * model.hidden**2 / tensor
    return StageParameters(dense=dense, experts=experts)


def state_bytes(job: Job, layouts: LayoutTable, parameters: StageParameters) -> dict[str, FloatArray]:
    """Give the bytes of states on one rank of each stage, [layouts, stages]: what `parameter_bytes` counts, sharded.

    Where the stack keeps no 16-bit copy beside the master weights (FSDP), parameters are fp32 shards like the
    optimizer's, and a 16-bit copy where the passes of a step share them less widely. What is kept less widely sharded
    from forward to backward passes alone is a copy too. `step_gradients`, the fp32 copies of 16-bit gradients, are
    there while the optimizer steps and not before.
    """
    each = parameter_bytes(job)
    names = ("parameters", "gradients", "master_weights", "moments", "step_gradients")
    totals = dict.fromkeys(names, np.zeros(parameters.dense.shape))
    for count, sharding in (
        (parameters.dense, dense_sharding(job, layouts)),
        (parameters.experts, expert_sharding(job, layouts)),
    ):
        held = {
            "parameters": _parameter_bytes(job, sharding),
            "gradients": each.gradient / sharding.gradients,
            "master_weights": each.master / sharding.optimizer,
            "moments": each.moments / sharding.optimizer,
            "step_gradients": each.step_gradient / sharding.optimizer,
        }
        totals = {name: total + count * held[name] for name, total in totals.items()}
    return totals


def _parameter_bytes(job: Job, sharding: Sharding) -> FloatArray:
    """Give the bytes of one parameter on a rank, in all the forms that it's held in, [layouts, 1]."""
    copy_bytes = parameter_bytes(job).parameter / sharding.parameters
    if not job.stack.master_bytes:
        copy_bytes = np.where(sharding.parameters < sharding.optimizer, PARAMETER_BYTES / sharding.parameters, 0.0)
        copy_bytes = copy_bytes + MASTER_BYTES / sharding.optimizer
    secondary = sharding.backward < sharding.parameters
    return np.asarray(copy_bytes + np.where(secondary, PARAMETER_BYTES / sharding.backward, 0.0))
