"""The launchers that a plan can be made for: each one's software stack, and what it runs less of than that.

What a stack can't express (axes, schedules, partitions, cuts) is in its catalog entry already.

    torchtitan   has no degree of its own for the tensor parallelism of experts (ParallelismConfig of 0.3)
    fsdp2        is torch.distributed.fsdp.fully_shard alone: data parallelism, plain or sharded
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from meshwright.catalog.document import validate
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import Axis, Partition, RecomputeBy, Splits, StackEntry
from meshwright.planner.layout.limits import Limits


class Target(StrEnum):
    """A launcher."""

    MEGATRON_CORE = "megatron-core"
    TORCHTITAN = "torchtitan"
    DEEPSPEED = "deepspeed"
    FSDP2 = "fsdp2"
    MINDSPEED = "mindspeed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """What a launcher runs: the catalog's stack of this name, within these largest values."""

    stack: str
    largest: Mapping[str, int] = field(default_factory=dict)


_ALONE = ("tensor_parallel", "context_parallel", "pipeline_parallel", "expert_parallel", "expert_tensor_parallel")

LAUNCHERS: Mapping[Target, Launcher] = {
    Target.MEGATRON_CORE: Launcher(stack="megatron-core"),
    Target.TORCHTITAN: Launcher(stack="fsdp2", largest={"expert_tensor_parallel": 1}),
    Target.DEEPSPEED: Launcher(stack="deepspeed-zero3"),
    Target.FSDP2: Launcher(stack="fsdp2", largest=dict.fromkeys(_ALONE, 1)),
    Target.MINDSPEED: Launcher(stack="mindspeed"),
}


def limits_under(target: Target | None, limits: Limits) -> Limits:
    """Give limits together with those of a target. Raises InputError where they contradict one another."""
    largest = {} if target is None else LAUNCHERS[target].largest
    if not largest:
        return limits
    most = {**largest, **limits.max}
    both = {name: min(most[name], largest.get(name, most[name])) for name in most}
    document = {"fix": limits.fix, "forbid": limits.forbid, "max": both}
    return validate(Limits, document, file="", path=f"target {target}: limits")


def unrestricted(stack: StackEntry) -> StackEntry:
    """Give a stack with the same constants that runs every layout there is."""
    everything = {
        "axes": tuple(Axis),
        "schedules": tuple(Schedule),
        "partitions": tuple(Partition),
        "splits": Splits.ANY,
        "recompute_by": RecomputeBy.STAGE,
        "vocabulary_parallel": True,
    }
    return stack.model_copy(update=everything)
