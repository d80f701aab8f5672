"""FSDP2 and hybrid sharding of a chunk, unit by unit, and the sums over replicas of what isn't sharded."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup, all_reduce
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from meshwright.planner.ledger.data_traffic import GRADIENTS_SHARDED, PARAMETERS_SHARDED
from meshwright.planner.ledger.parameters import EMBEDDING, HEAD, Unit, chunk_units
from meshwright.planner.ledger.sharding import shards_of
from meshwright.planner.ledger.workload import FLOAT_BYTES, Chunk, Workload
from meshwright.runtime.meshes import Meshes
from meshwright.runtime.model import ModelChunk


def shard_chunk(module: ModelChunk, chunk: Chunk, workload: Workload, meshes: Meshes) -> None:
    """Shard each unit of a chunk that the layout shards; units come innermost first."""
    units = list(chunk_units(workload.model, chunk))
    held = workload.layout.zero_stage < PARAMETERS_SHARDED or workload.layout.pipeline_parallel > 1
    held = held or workload.layout.shards["parameter_shard"] == 1
    formats, left = _formats(workload), set[nn.Parameter]()
    for unit in units:
        inner = module.get_submodule(unit.name)
        if shards_of(workload, expert=unit.expert) == 1:
            left |= set(inner.parameters()) if unit.expert else set()
            continue
        mesh = meshes.shards(expert=unit.expert)
        fully_shard(
            inner,
            mesh=mesh,
            reshard_after_forward=not held and unit.name != HEAD,
            mp_policy=formats,
            ignored_params=left & _all(inner),
        )
        if unit.expert:
            inner.set_gradient_divide_factor(workload.layout.data_parallel * workload.layout.context_parallel)
            inner.set_force_sum_reduction_for_comms(True)
        if unit.name == EMBEDDING:
            inner.set_unshard_in_backward(False)
    if shards_of(workload, expert=False) > 1:
        fully_shard(module, mesh=meshes.shards(expert=False), mp_policy=formats, ignored_params=left)


def _formats(workload: Workload) -> MixedPrecisionPolicy:
    if workload.element_bytes == FLOAT_BYTES:
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)


def _all(module: nn.Module) -> set[nn.Parameter]:
    return set(module.parameters())


def before_backward(module: nn.Module, workload: Workload, *, last: bool) -> None:
    """Tell FSDP what the backward pass of a micro-batch is to do, the step's last one or another."""
    if not isinstance(module, FSDPModule):
        return
    layout = workload.layout
    gradients_sharded = layout.zero_stage >= GRADIENTS_SHARDED and layout.shards["gradient_shard"] > 1
    parameters_sharded = layout.zero_stage >= PARAMETERS_SHARDED and layout.shards["parameter_shard"] > 1
    module.set_reshard_after_backward(last or parameters_sharded)
    module.set_requires_gradient_sync(last or gradients_sharded)
    module.set_requires_all_reduce(last)


def place_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Lay gradients out as their parameters are: those of each tensor rank's own tokens are summed, one by one."""
    for parameter in parameters:
        gradient = parameter.grad
        if isinstance(parameter, DTensor) and isinstance(gradient, DTensor):
            parameter.grad = gradient.redistribute(placements=parameter.placements)


def average_over_replicas(parameters: list[nn.Parameter], group: ProcessGroup, *, divisor: int) -> None:
    """Average gradients over replicas, in place, all in one bucket."""
    gradients = [_local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    bucket = torch.cat([gradient.flatten() for gradient in gradients])
    if group.size() > 1:
        all_reduce(bucket, group=group)
    bucket /= divisor
    for gradient, total in zip(gradients, bucket.split([each.numel() for each in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))


def own_parameters(module: ModelChunk, unit: Unit) -> list[nn.Parameter]:
    """Give a unit's parameters in the order in which it lists them."""
    inner = module.get_submodule(unit.name)
    return [inner.get_parameter(each.name) for each in unit.parameters]


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
