"""What is kept of each parameter: itself, its gradient's sum, master weight, momentum and variance.

`costmodels/parameter_bytes.py` has their sizes and sources. Where the software keeps no 16-bit copy beside the master
weights (FSDP), the parameter is its own fp32 shard, sharded as the optimizer's states are. A 16-bit gradient that is
there beside its fp32 sum goes with the backward pass that made it, and is no state.
"""

from dataclasses import dataclass
from enum import StrEnum

from meshwright.costmodels.job import Job
from meshwright.costmodels.parameter_bytes import MASTER_BYTES, MOMENTS_BYTES, parameter_bytes


class ShardedAs(StrEnum):
    """The field of `costmodels.sharding.Sharding` that says over how many replicas a state is sharded."""

    OPTIMIZER = "optimizer"
    GRADIENTS = "gradients"
    PARAMETERS = "parameters"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One state of each parameter."""

    name: str
    element_bytes: int
    sharded_as: ShardedAs


def states_of(job: Job, *, gradients: bool = True) -> tuple[State, ...]:
    """Give what is kept of each parameter; without gradients where it is between two steps, when their sums are 0."""
    each = parameter_bytes(job)
    own_shard = not job.stack.master_bytes
    kept = [
        State(
            name="parameter",
            element_bytes=each.parameter,
            sharded_as=ShardedAs.OPTIMIZER if own_shard else ShardedAs.PARAMETERS,
        )
    ]
    if gradients:
        bytes_each = MASTER_BYTES if each.gradient > MASTER_BYTES else each.gradient
        kept.append(State(name="gradient", element_bytes=bytes_each, sharded_as=ShardedAs.GRADIENTS))
    if each.master:
        kept.append(State(name="master", element_bytes=each.master, sharded_as=ShardedAs.OPTIMIZER))
    for name in ("momentum", "variance"):
        kept.append(State(name=name, element_bytes=MOMENTS_BYTES // 2, sharded_as=ShardedAs.OPTIMIZER))
    return tuple(kept)
