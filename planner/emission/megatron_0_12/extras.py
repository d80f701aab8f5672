"""What MindSpeed-LLM adds to the arguments of Megatron-LM core 0.12."""

from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.model_entry import ModelEntry, Norm, Positions
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import RecomputedModule, StackEntry
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.emission.megatron.arguments import Arguments, Value
from meshwright.planner.plan_schema import Plan

ALGORITHMS = {
    ContextMethod.RING: "megatron_cp_algo",
    ContextMethod.ALL_GATHER: "kvallgather_cp_algo",
    ContextMethod.ULYSSES: "ulysses_cp_algo",
    ContextMethod.HYBRID: "hybrid_cp_algo",
}
# Parts of a layer that it recomputes by itself, beside Megatron's granularities.
ALONE = {RecomputedModule.NORMS: "recompute-norm", RecomputedModule.ACTIVATION: "recompute-activation-function"}


def extras(plan: Plan) -> Arguments:
    """Give the arguments that only MindSpeed knows, but for those of stages."""
    layout, stack = plan.layout.layout(), plan.inputs.stack.entry
    return {
        **_context(layout),
        **_schedule(layout),
        **_fusions(plan.inputs.model.entry, stack),
        **_memory(plan, layout),
    }


def recomputes_alone(stack: StackEntry) -> bool:
    """Whether what is recomputed selectively is only what MindSpeed recomputes by itself."""
    return set(stack.selective_recompute) <= set(ALONE)


def _context(layout: Layout) -> Arguments:
    if layout.context_parallel == 1:
        return {}
    method: dict[str, Value] = {"context-parallel-algo": ALGORITHMS[layout.context_method]}
    if layout.context_method is ContextMethod.HYBRID:
        method["ulysses-degree-in-cp"] = layout.ulysses_parallel
    if layout.context_method in (ContextMethod.RING, ContextMethod.HYBRID):
        method["use-cp-send-recv-overlap"] = True
    return method


def _schedule(layout: Layout) -> Arguments:
    if layout.pipeline_parallel == 1 or layout.schedule is not Schedule.DUAL_PIPE_V:
        return {}
    return {"schedules-method": "dualpipev", "dualpipev-dw-detach": True}


def _fusions(entry: ModelEntry, stack: StackEntry) -> Arguments:
    switches = {
        "use-flash-attn": stack.fused_attention,
        "use-fused-rmsnorm": stack.fused_norm and entry.norm is Norm.RMS_NORM,
        "use-fused-rotary-pos-emb": stack.fused_rotary and entry.positions is Positions.ROTARY,
        "use-fused-swiglu": stack.fused_activation and entry.gated_mlp,
    }
    return {name: True for name, wanted in switches.items() if wanted}


def _memory(plan: Plan, layout: Layout) -> Arguments:
    stack, given = plan.inputs.stack.entry, dict[str, Value]()
    if layout.recompute is Recompute.SELECTIVE and recomputes_alone(stack):
        given |= {ALONE[module]: True for module in stack.selective_recompute}
    if stack.master_bytes == 2 and plan.inputs.job.precision is Precision.BF16:
        given["reuse-fp32-param"] = True
    return given
