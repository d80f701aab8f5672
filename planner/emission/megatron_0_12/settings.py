"""What Megatron-LM core 0.12 is told: as later versions, where it has the same words."""

from collections.abc import Mapping
from types import MappingProxyType

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.emission.megatron.arguments import Arguments, Value
from meshwright.planner.emission.megatron.layout_arguments import layout_arguments
from meshwright.planner.emission.megatron.model_arguments import model_arguments
from meshwright.planner.emission.megatron.training_arguments import training_arguments
from meshwright.planner.emission.megatron_0_12.devices import has_mindspeed
from meshwright.planner.emission.megatron_0_12.extras import extras, recomputes_alone
from meshwright.planner.emission.megatron_0_12.stages import stage_arguments
from meshwright.planner.plan_schema import Plan

# Its FSDP had another name, and checkpoints in the formats of all optimizers.
RENAMED: Mapping[str, str | None] = MappingProxyType({"use-megatron-fsdp": "use-custom-fsdp", "ckpt-format": None})
# Said in words of its own.
STAGES = ("pipeline-model-parallel-layout", "num-layers-per-virtual-pipeline-stage")
DISPATCH = ("moe-token-dispatcher-type", "moe-flex-dispatcher-backend")
CONTEXT = ("cp-comm-type", "hierarchical-context-parallel-sizes")
RECOMPUTATION = ("recompute-granularity", "recompute-modules")


def arguments(plan: Plan) -> Arguments:
    """Give all arguments of a plan without obstacles, those for the model first."""
    layout, mindspeed = plan.layout.layout(), has_mindspeed(plan)
    given = {**model_arguments(plan.inputs), **_layout(plan, layout, mindspeed=mindspeed), **_training(plan, layout)}
    return {**given, **(extras(plan) if mindspeed else {})}


def _layout(plan: Plan, layout: Layout, *, mindspeed: bool) -> Arguments:
    given = {RENAMED.get(name, name): value for name, value in layout_arguments(plan).items()}
    dispatch = _dispatch(given, mindspeed=mindspeed)
    left_out = (*STAGES, *DISPATCH, *(CONTEXT if mindspeed else ()), *_recomputed_alone(plan, layout))
    kept = {name: value for name, value in given.items() if name is not None and name not in left_out}
    return {**kept, **stage_arguments(plan), **dispatch}


def _dispatch(given: Mapping[str | None, Value], *, mindspeed: bool) -> Arguments:
    """Give how tokens reach experts; DeepEP, which sends them once a node, is for NVIDIA devices."""
    if "moe-token-dispatcher-type" not in given:
        return {}
    if given["moe-token-dispatcher-type"] == "flex" and not mindspeed:
        return {"moe-token-dispatcher-type": "flex", "moe-enable-deepep": True}
    return {"moe-token-dispatcher-type": "alltoall"}


def _recomputed_alone(plan: Plan, layout: Layout) -> tuple[str, ...]:
    alone = has_mindspeed(plan) and recomputes_alone(plan.inputs.stack.entry)
    return RECOMPUTATION if layout.recompute is Recompute.SELECTIVE and alone else ()


def _training(plan: Plan, layout: Layout) -> Arguments:
    """Give the arguments for the step; under dualpipev gradients aren't reduced beside the backward pass."""
    given = training_arguments(plan)
    if layout.schedule is not Schedule.DUAL_PIPE_V:
        return given
    alone = ("overlap-grad-reduce", "overlap-param-gather")
    return {name: value for name, value in given.items() if name not in alone}
