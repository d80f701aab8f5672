"""Doing without an axis: its ranks become data-parallel replicas, which see sequences of their own.

As changes of `data_parallel` don't add up, a target yields one obstacle of this kind at a time.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.schedule import Schedule
from meshwright.planner.emission.obstacle import Change, Obstacle
from meshwright.planner.plan_schema import Plan

# What says how an axis is used says nothing without it.
NO_AXIS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tensor_parallel": {"tensor_parallel": 1, "sequence_parallel": False, "expert_tensor_parallel": 1},
        "context_parallel": {
            "context_parallel": 1,
            "context_method": ContextMethod.RING,
            "ulysses_parallel": 1,
        },
        "pipeline_parallel": {
            "pipeline_parallel": 1,
            "virtual_pipeline": 1,
            "schedule": Schedule.ONE_F_ONE_B,
            "split": (),
            "recompute_split": (),
            "vocabulary_parallel": False,
        },
    }
)
WHOLE_SHARDS = MappingProxyType({"gradient_shard": None, "parameter_shard": None, "backward_shard": None})


def as_replicas(plan: Plan, axis: str) -> tuple[Change, ...]:
    """Give layouts without an axis: with the same stage of ZeRO, and with parameters sharded too.

    None where the batch can't be shared by as many replicas.
    """
    layout = plan.layout.layout()
    replicas = layout.data_parallel * getattr(layout, axis)
    if plan.inputs.job.global_batch % (replicas * layout.micro_batch):
        return ()
    context = 1 if axis == "context_parallel" else layout.context_parallel
    shared = {**NO_AXIS[axis], "data_parallel": replicas, **WHOLE_SHARDS}
    stages = dict.fromkeys((layout.zero_stage, 3))
    return tuple(shared | {"zero_stage": stage, "zero_shard": replicas * context if stage else 1} for stage in stages)


def without_axis(plan: Plan, axis: str, feature: str) -> Obstacle:
    """Give the obstacle of an axis of a plan that a target has no use for, with the layouts that do without it."""
    return Obstacle(path=f"layout.{axis}", feature=feature, instead=as_replicas(plan, axis))
