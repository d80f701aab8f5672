"""The launchers that a plan can be made for: each one's software stack, and what it runs less of than that.

What a stack can't express (axes, schedules, partitions, cuts) is in its catalog entry already.

    torchtitan   has no degree of its own for the tensor parallelism of experts (ParallelismConfig of 0.3)
    fsdp2        is torch.distributed.fsdp.fully_shard alone: data parallelism, plain or sharded
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.errors import InputError
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import Axis, Partition, RecomputeBy, Splits, StackEntry
from meshwright.planner.layout.limited_fields import Value, leaves_some
from meshwright.planner.layout.limits import Limit, Limits


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


_HINT = "leave out the limit, or choose another target"
_ALONE = ("tensor_parallel", "context_parallel", "pipeline_parallel", "expert_parallel", "expert_tensor_parallel")

LAUNCHERS: Mapping[Target, Launcher] = {
    Target.MEGATRON_CORE: Launcher(stack="megatron-core"),
    Target.TORCHTITAN: Launcher(stack="fsdp2", largest={"expert_tensor_parallel": 1}),
    Target.DEEPSPEED: Launcher(stack="deepspeed-zero3"),
    Target.FSDP2: Launcher(stack="fsdp2", largest=dict.fromkeys(_ALONE, 1)),
    Target.MINDSPEED: Launcher(stack="mindspeed"),
}


class TargetLimits(Limits):
    """Limits together with the largest values that a target runs."""

    target: Target
    largest: Mapping[str, int]

    def __bool__(self) -> bool:
        """Say that something is limited."""
        return True

    def options(self) -> tuple[str, ...]:
        """Give target and limits as options of the command line."""
        return (f"--target {self.target}", *super().options())

    def allows(self, field: str, *, value: Value) -> bool:
        """Say whether target and limits leave a field this value."""
        return super().allows(field, value=value) and (field not in self.largest or int(value) <= self.largest[field])

    def _on(self, field: str) -> Iterator[Limit]:
        yield from super()._on(field)
        if field in self.largest:
            most = self.largest[field]
            told = f"--target {self.target} (at most {field}={most})"
            yield Limit(option=told, keeps=lambda values: values <= most)


def limits_under(target: Target | None, limits: Limits) -> Limits:
    """Give limits together with those of a target. Raises InputError where they contradict one another."""
    largest = {} if target is None else LAUNCHERS[target].largest
    if target is None or not largest:
        return limits
    for name, most in largest.items():
        runs = f"the target {target} runs {name}={most} at most"
        if int(limits.fix.get(name, most)) > most:
            raise InputError(f"is {limits.fix[name]}, but {runs}", path=f"limits.fix.{name}", hint=_HINT)
        if not leaves_some(name, limits.forbid.get(name, ()), most):
            raise InputError(f"leaves no value of it, since {runs}", path=f"limits.forbid.{name}", hint=_HINT)
    return TargetLimits(fix=limits.fix, forbid=limits.forbid, max=limits.max, target=target, largest=largest)


def unrestricted(stack: StackEntry) -> StackEntry:
    """Give a stack with the same constants that runs every layout there is."""
    everything = {
        "axes": tuple(Axis),
        "axis_orders": tuple(AxisOrder),
        "schedules": tuple(Schedule),
        "partitions": tuple(Partition),
        "hybrid_stages": (1, 2),
        "splits": Splits.ANY,
        "recompute_by": RecomputeBy.STAGE,
        "vocabulary_parallel": True,
    }
    return stack.model_copy(update=everything)
