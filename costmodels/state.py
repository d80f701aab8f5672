"""Parameters, gradients and optimizer states of each stage, as one rank holds them.

Tensor parallelism splits matrices, expert and expert tensor parallelism the experts; what is left is sharded as
sharding.py says.
"""

from dataclasses import dataclass

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import BoolArray, FloatArray, LayoutTable
from meshwright.costmodels.parameter_bytes import MASTER_BYTES, PARAMETER_BYTES, parameter_bytes
from meshwright.costmodels.parameters import (
    embedding_norm_parameters,
    final_norm_parameters,
    layer_parameters,
    position_parameters,
)
from meshwright.costmodels.sharding import Sharding, dense_sharding, expert_sharding
from meshwright.costmodels.stage_table import StageTable
from meshwright.costmodels.transformer import Layer

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


def layer_on_rank(job: Job, layer: Layer, layouts: LayoutTable) -> StageParameters:
    """Count the parameters of one layer on one rank, [layouts, 1]."""
    count = layer_parameters(job.model, layer)
    tensor = layouts.tensor_parallel[:, np.newaxis]
    expert_ranks = (layouts.expert_parallel * layouts.expert_tensor_parallel)[:, np.newaxis]
    dense = (count.attention_sharded + count.mlp_sharded) / tensor + count.replicated
    return StageParameters(dense=dense, experts=count.experts / expert_ranks)


def vocabulary_on_rank(job: Job, layouts: LayoutTable) -> StageParameters:
    """Count the parameters of embedding, head and MTP's projections on a rank that has them all, [layouts, 1].

    The stages of a pipeline have no fewer together.
    """
    both = np.ones((len(layouts), 1), dtype=bool)
    return StageParameters(dense=_ends(job, layouts, first=both, last=both), experts=np.zeros((len(layouts), 1)))


def stage_parameters(job: Job, layouts: LayoutTable, stages: StageTable) -> StageParameters:
    """Count the parameters on one rank of each distinct stage."""
    dense, experts = _ends(job, layouts, first=stages.first, last=stages.last), np.zeros(stages.index.shape)
    for kind, layer in enumerate(job.model.layer_kinds):
        each = layer_on_rank(job, layer, layouts)
        dense = dense + stages.layers[:, :, kind] * each.dense
        experts = experts + stages.layers[:, :, kind] * each.experts
    return StageParameters(dense=dense, experts=experts)


def _ends(job: Job, layouts: LayoutTable, *, first: BoolArray, last: BoolArray) -> FloatArray:
    """Count the parameters of embedding, head and MTP's projections where stages have them, [layouts, stages]."""
    model = job.model
    word_table = model.hidden * local_vocabulary(job, layouts)[:, np.newaxis]
    embedding = word_table + position_parameters(model) + embedding_norm_parameters(model)
    own_head = ~first | (not model.tied_embeddings)
    total = first * embedding + last * (word_table * own_head + final_norm_parameters(model))
    if model.mtp_layers:
        total = total + last * model.mtp_layers * 2.0 * model.hidden**2 / layouts.tensor_parallel[:, np.newaxis]
    return np.asarray(total)


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
            "master_weights": each.master / (sharding.optimizer * job.optimizer_parties),
            "moments": each.moments / (sharding.optimizer * job.optimizer_parties),
            "step_gradients": each.step_gradient / (sharding.optimizer * job.optimizer_parties),
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
