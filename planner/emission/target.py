"""The launchers that plans are emitted for, and the version of each that what is emitted is for."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from meshwright.catalog.names import match_name
from meshwright.planner.targets import Target


class EmitTarget(StrEnum):
    """What reads the emitted files."""

    MEGATRON = "megatron"
    MEGATRON_0_12 = "megatron-0.12"
    TORCHTITAN = "torchtitan"
    DEEPSPEED = "deepspeed"
    ACCELERATE = "accelerate"
    MEGATRON_BRIDGE = "megatron-bridge"
    NANOTRON = "nanotron"
    TORCH = "torch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """Software that reads emitted files. searched_as: the target whose space `meshwright plan --target` searches."""

    name: str
    version: str
    searched_as: Target | None


CONSUMERS: Mapping[EmitTarget, Consumer] = {
    EmitTarget.MEGATRON: Consumer(name="Megatron-LM", version="core 0.19 (d98e8a64)", searched_as=Target.MEGATRON_CORE),
    EmitTarget.MEGATRON_0_12: Consumer(
        name="Megatron-LM with MindSpeed-LLM",
        version="core 0.12.1 (MindSpeed-LLM c77308a)",
        searched_as=Target.MINDSPEED,
    ),
    EmitTarget.TORCHTITAN: Consumer(name="torchtitan", version="0.3.0", searched_as=Target.TORCHTITAN),
    EmitTarget.DEEPSPEED: Consumer(name="DeepSpeed", version="0.19.8", searched_as=Target.DEEPSPEED),
    EmitTarget.ACCELERATE: Consumer(name="Accelerate", version="1.15.0", searched_as=Target.FSDP2),
    EmitTarget.MEGATRON_BRIDGE: Consumer(name="Megatron-Bridge", version="0.6.2", searched_as=Target.MEGATRON_CORE),
    EmitTarget.NANOTRON: Consumer(name="Nanotron", version="2411b02", searched_as=None),
    EmitTarget.TORCH: Consumer(name="meshwright's reference launcher", version="torch 2.13.0", searched_as=None),
}


def emit_target(name: str) -> EmitTarget:
    """Give the target of a name; of one that `plan --target` has, the first that reads what is planned for it.

    Raises InputError where there is none of it, with the nearest.
    """
    readers = [target for target, consumer in CONSUMERS.items() if consumer.searched_as == name]
    return readers[0] if readers else EmitTarget(match_name(name, tuple(EmitTarget), kind="launcher to emit for"))
