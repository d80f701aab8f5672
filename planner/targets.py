"""The launchers that a plan can be made for: each one's software stack, and what it runs less of than that.

What a stack can't express (axes, schedules, partitions, cuts) is in its catalog entry already.

    torchtitan   has no degree of its own for the tensor parallelism of experts (ParallelismConfig of 0.3), shards
                 optimizer states with gradients or not at all, gathers keys and values (its flexible attention), and
                 has no schedule of PyTorch's that splits backward passes with one chunk a stage
    deepspeed    recomputes whole layers or nothing (its activation checkpointing)
    fsdp2        is torch.distributed.fsdp.fully_shard alone: data parallelism, plain or sharded, all layers recomputed
                 or none

target_rules.py has what they don't run together.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

import numpy as np

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.errors import InputError
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import Axis, Partition, RecomputeBy, Splits, StackEntry
from meshwright.planner import target_rules
from meshwright.planner.layout.limited_fields import LARGEST, Value, code_of, leaves_some, shown
from meshwright.planner.layout.limits import Limit, Limits
from meshwright.planner.layout.rules import Rule


class Target(StrEnum):
    """A launcher."""

    MEGATRON_CORE = "megatron-core"
    TORCHTITAN = "torchtitan"
    DEEPSPEED = "deepspeed"
    FSDP2 = "fsdp2"
    MINDSPEED = "mindspeed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """What a launcher runs: the catalog's stack of this name, but of some fields less.

    largest: the largest values of a layout's fields. never: values of them that it doesn't run. rules: what it doesn't
    run together, by the column of a space that is known last.
    """

    stack: str
    less: Mapping[str, object] = field(default_factory=dict)
    largest: Mapping[str, int] = field(default_factory=dict)
    never: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    rules: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)

    @property
    def limits(self) -> bool:
        """Say that it doesn't run all that its stack expresses."""
        return bool(self.largest or self.never or self.rules)


_HINT = "leave out the limit, or choose another target"
_ALONE = ("tensor_parallel", "context_parallel", "pipeline_parallel", "expert_parallel", "expert_tensor_parallel")

LAUNCHERS: Mapping[Target, Launcher] = {
    Target.MEGATRON_CORE: Launcher(stack="megatron-core", rules=target_rules.MEGATRON),
    Target.TORCHTITAN: Launcher(
        stack="fsdp2",
        less={
            "context_methods": (ContextMethod.ALL_GATHER,),
            "schedules": (
                Schedule.GPIPE,
                Schedule.ONE_F_ONE_B,
                Schedule.INTERLEAVED,
                Schedule.ZERO_BUBBLE_V,
                Schedule.DUAL_PIPE_V,
            ),
            "partitions": (Partition.UNIFORM, Partition.HYBRID),
        },
        largest={"expert_tensor_parallel": 1},
        never={"zero_stage": (1,)},
        rules=target_rules.TORCHTITAN,
    ),
    Target.DEEPSPEED: Launcher(
        stack="deepspeed-zero3", never={"recompute": ("selective",)}, rules=target_rules.DEEPSPEED
    ),
    Target.FSDP2: Launcher(
        stack="fsdp2",
        less={"partitions": (Partition.UNIFORM, Partition.HYBRID), "recompute_by": RecomputeBy.ALL},
        largest=dict.fromkeys(_ALONE, 1),
        never={"zero_stage": (1,), "recompute": ("selective",)},
    ),
    Target.MINDSPEED: Launcher(stack="mindspeed", rules=target_rules.MINDSPEED),
}


class TargetLimits(Limits):
    """Limits together with what a target runs less of than its stack."""

    target: Target

    @property
    def launcher(self) -> Launcher:
        """What the target is."""
        return LAUNCHERS[self.target]

    def __bool__(self) -> bool:
        """Say that something is limited."""
        return True

    def options(self) -> tuple[str, ...]:
        """Give target and limits as options of the command line."""
        return (f"--target {self.target}", *super().options())

    def allows(self, field: str, *, value: Value) -> bool:
        """Say whether target and limits leave a field this value."""
        largest, never = self.launcher.largest, self.launcher.never.get(field, ())
        small = field not in largest or int(value) <= largest[field]
        return small and value not in never and super().allows(field, value=value)

    def rules(self, columns: Iterable[str]) -> tuple[Rule, ...]:
        """Give the rules of target and limits on what is known once some columns are."""
        known = tuple(columns)
        return (*super().rules(known), *(rule for column in known for rule in self.launcher.rules.get(column, ())))

    def _on(self, field: str) -> Iterator[Limit]:
        yield from super()._on(field)
        if field in self.launcher.largest:
            most = self.launcher.largest[field]
            told = f"--target {self.target} (at most {field}={most})"
            yield Limit(option=told, keeps=lambda values: values <= most)
        for value in self.launcher.never.get(field, ()):
            told = f"--target {self.target} (no {field}={value})"
            yield Limit(option=told, keeps=partial(np.not_equal, code_of(field, value)))


def limits_under(target: Target | None, limits: Limits) -> Limits:
    """Give limits together with those of a target. Raises InputError where they contradict one another."""
    if target is None or not LAUNCHERS[target].limits:
        return limits
    launcher = LAUNCHERS[target]
    for name in sorted({*launcher.largest, *launcher.never}):
        most, never = launcher.largest.get(name, LARGEST), launcher.never.get(name, ())
        runs = f"the target {target} runs " + (f"{name}={most} at most" if not never else f"no {name}={never[0]}")
        asked = limits.fix.get(name)
        if asked is not None and (asked in never or (name in launcher.largest and int(asked) > most)):
            raise InputError(f"is {shown(asked)}, but {runs}", path=f"limits.fix.{name}", hint=_HINT)
        if not leaves_some(name, (*limits.forbid.get(name, ()), *never), most):
            raise InputError(f"leaves no value of it, since {runs}", path=f"limits.forbid.{name}", hint=_HINT)
    return TargetLimits(fix=limits.fix, forbid=limits.forbid, max=limits.max, target=target)


def stack_under(target: Target | None, stack: StackEntry) -> StackEntry:
    """Give a stack with what a target runs of it."""
    return stack if target is None else stack.model_copy(update=dict(LAUNCHERS[target].less))


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
