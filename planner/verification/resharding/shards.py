"""Which elements of a tensor a rank of a plan holds, in the order in which its buffer has them.

A tensor is an array of element numbers, which slicing cuts as tensor, expert and pipeline parallelism cut the tensor,
padded with -1; what is left is laid out flat and cut into equal parts for the replicas.
"""

from collections.abc import Iterator
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from meshwright.planner.plan_schema import Plan

Numbers = NDArray[np.int64]

# By the end of a tensor's name, which of its dimensions tensor parallelism cuts.
ROWS = ("query", "key", "value", "gate", "up", "query_up", "key_value_up", "projection")
COLUMNS = ("output", "down")
VOCABULARY = ("embedding.weight", "head.output.weight")
# Megatron pads a vocabulary to a multiple of this for each tensor rank.
VOCABULARY_MULTIPLE = 128


def held(plan: Plan, rank: int, name: str, shape: tuple[int, ...], state: str) -> Numbers | None:
    """Give the numbers of the elements of a tensor's state that a rank holds, -1 for padding; None for no tensor."""
    stage = _coordinate(plan, "pipeline", rank)
    if stage not in stages_of(plan, name):
        return None
    local = _slab(plan, rank, name, np.arange(prod(shape)).reshape(shape))
    replica = _coordinate(plan, "expert_data" if ".experts." in name else "data_context", rank)
    return _shard(plan, local, replica, shards(plan, name, state))


def stages_of(plan: Plan, name: str) -> set[int]:
    """Give the stages that hold a tensor."""
    head, number, *_ = name.split(".")
    layers = plan.inputs.model.entry.layers
    found = set()
    for stage in plan.stages:
        if head in ("layers", "mtp"):
            layer = int(number) if head == "layers" else layers - 1
            here = any(first <= layer <= last for first, last in stage.chunks)
        else:
            tied = name == VOCABULARY[0] and plan.inputs.model.entry.tied_embeddings
            here = (stage.embedding if head == "embedding" else stage.head) or (tied and stage.head)
        if here:
            found.add(stage.stage)
    return found


def shards(plan: Plan, name: str, state: str) -> int:
    """Give over how many replicas a state of a tensor is sharded."""
    layout, stack = plan.layout, plan.inputs.stack.entry
    whole_in_pipeline = layout.pipeline_parallel > 1 and not stack.reshard_in_pipeline
    wide = layout.zero_shard if layout.zero_stage else 1
    if state == "gradient":
        own = layout.gradient_shard or wide if layout.zero_stage >= 2 and not whole_in_pipeline else 1
    elif state == "parameter" and stack.master_bytes:
        own = layout.parameter_shard or wide if layout.zero_stage >= 3 and not whole_in_pipeline else 1
    else:
        own = wide
    if ".experts." not in name or own == 1:
        return own
    # Those of its copies that lie within the ranks that share the other parameters.
    expert, dense = plan.mesh.groups["expert_data"], plan.mesh.groups["data_context"]
    return max(1, min(own * dense.stride // expert.stride, expert.size))


def _coordinate(plan: Plan, axis: str, rank: int) -> int:
    group = plan.mesh.groups[axis]
    return rank // group.stride % group.size


def _slab(plan: Plan, rank: int, name: str, whole: Numbers) -> Numbers:
    for dim, parts, place, multiple in _cuts(plan, rank, name):
        each = ceil(ceil(whole.shape[dim] / multiple) * multiple / parts)
        own = np.take(whole, range(min(place * each, whole.shape[dim]), min((place + 1) * each, whole.shape[dim])), dim)
        missing = [(0, each - own.shape[dim] if axis == dim else 0) for axis in range(whole.ndim)]
        whole = np.pad(own, missing, constant_values=-1)
    return whole


def _cuts(plan: Plan, rank: int, name: str) -> Iterator[tuple[int, int, int, int]]:
    """Give each cut of a tensor: the dimension, in how many parts, which of them is the rank's, padded to what."""
    layout = plan.layout
    part = name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]
    tensor = _coordinate(plan, "tensor", rank)
    if ".experts." in name:
        yield 0, layout.expert_parallel, _coordinate(plan, "expert", rank), 1
        yield 2 if part == "down" else 1, layout.expert_tensor_parallel, _coordinate(plan, "expert_tensor", rank), 1
    elif name in VOCABULARY:
        stages = layout.pipeline_parallel if layout.vocabulary_parallel else 1
        stage = _coordinate(plan, "pipeline", rank) if stages > 1 else 0
        multiple = VOCABULARY_MULTIPLE * layout.tensor_parallel
        yield 0, layout.tensor_parallel * stages, stage * layout.tensor_parallel + tensor, multiple
    elif part in ROWS:
        yield 0, layout.tensor_parallel, tensor, 1
    elif part in COLUMNS and name.endswith(".weight"):
        yield 1, layout.tensor_parallel, tensor, 1


def _shard(plan: Plan, local: Numbers, replica: int, parts: int) -> Numbers:
    by_rows = plan.inputs.stack.entry.master_bytes == 0
    rows = local.reshape(local.shape[0], -1) if by_rows else local.reshape(-1, 1)
    each = ceil(len(rows) / parts)
    number = replica % parts
    return rows[number * each : (number + 1) * each].ravel()
