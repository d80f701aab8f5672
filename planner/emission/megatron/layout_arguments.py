"""What Megatron-LM is told of the layout: degrees, stages, sharding and recomputation."""

from collections.abc import Sequence

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.stack_entry import RecomputedModule
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.costmodels.stages import chunk_sizes
from meshwright.planner.emission.megatron.arguments import Arguments, Value
from meshwright.planner.plan_schema import Plan

CONTEXT_METHODS = {
    ContextMethod.RING: "p2p",
    ContextMethod.ALL_GATHER: "all_gather",
    ContextMethod.ULYSSES: "a2a",
    ContextMethod.HYBRID: "a2a+p2p",
}
MODULES = {
    RecomputedModule.ATTENTION_CORE: "core_attn",
    RecomputedModule.NORMS: "layernorm",
    RecomputedModule.ACTIVATION: "moe_act",
    RecomputedModule.LATENT_UP_PROJECTION: "mla_up_proj",
    RecomputedModule.MLP: "mlp",
    RecomputedModule.EXPERTS: "moe",
    RecomputedModule.SHARED_EXPERTS: "shared_experts",
}
SHARDING = {1: "optim", 2: "optim_grads", 3: "optim_grads_params"}


def layout_arguments(plan: Plan) -> Arguments:
    """Give the arguments for the layout, of which the target's obstacles know nothing to say."""
    layout = plan.layout.layout()
    return {
        "tensor-model-parallel-size": layout.tensor_parallel,
        **({"sequence-parallel": True} if layout.sequence_parallel else {}),
        "pipeline-model-parallel-size": layout.pipeline_parallel,
        **_stages(plan, layout),
        **({"use-tp-pp-dp-mapping": True} if layout.axis_order is AxisOrder.DATA_OUTERMOST else {}),
        "context-parallel-size": layout.context_parallel,
        **_context(layout),
        **_experts(plan, layout),
        **_sharding(layout),
        **_recompute(plan, layout),
    }


def _stages(plan: Plan, layout: Layout) -> Arguments:
    """Say nothing where the layers are cut into equal chunks, else how many each has: "Et*7|t*9|t*7L"."""
    sizes = layer_counts(plan)
    chunks = layout.virtual_pipeline
    if len(sizes) == 1:
        return {}
    if len(set(sizes)) == 1:
        return {"num-layers-per-virtual-pipeline-stage": sizes[0]} if chunks > 1 else {}
    return {"pipeline-model-parallel-layout": stage_layout(sizes, plan.inputs.model.entry.mtp_layers)}


def layer_counts(plan: Plan) -> tuple[int, ...]:
    """Give the layers of each chunk in model order."""
    layout, layers = plan.layout.layout(), plan.inputs.model.entry.layers
    return layout.split or chunk_sizes(layers, layout.pipeline_parallel * layout.virtual_pipeline)


def stage_layout(sizes: Sequence[int], mtp_layers: int) -> str:
    """Give the text of a layout: E the embedding, t a layer, m an MTP module, L the loss, | between chunks."""
    last = len(sizes) - 1
    return "|".join(
        ("E" if chunk == 0 else "") + (f"t*{size}" if size else "") + ("m" * mtp_layers + "L" if chunk == last else "")
        for chunk, size in enumerate(sizes)
    )


def _context(layout: Layout) -> Arguments:
    if layout.context_parallel == 1:
        return {}
    method: dict[str, Value] = {"cp-comm-type": CONTEXT_METHODS[layout.context_method]}
    if layout.context_method is not ContextMethod.HYBRID:
        return method
    inner = layout.ulysses_parallel
    return method | {"hierarchical-context-parallel-sizes": (inner, layout.context_parallel // inner)}


def _experts(plan: Plan, layout: Layout) -> Arguments:
    if plan.inputs.model.entry.experts is None:
        return {}
    deduplicated: Arguments = {"moe-token-dispatcher-type": "flex", "moe-flex-dispatcher-backend": "deepep"}
    plain: Arguments = {"moe-token-dispatcher-type": "alltoall"}
    # The flexible dispatcher is for groups of expert x expert-tensor ranks of more than one.
    spread = layout.expert_parallel * layout.expert_tensor_parallel > 1
    return {
        "expert-model-parallel-size": layout.expert_parallel,
        "expert-tensor-parallel-size": layout.expert_tensor_parallel,
        **(deduplicated if plan.inputs.stack.entry.deduplicated_dispatch and spread else plain),
        "moe-grouped-gemm": True,
    }


def _sharding(layout: Layout) -> Arguments:
    if layout.zero_stage == 0:
        return {}
    copies = layout.data_parallel * layout.context_parallel // layout.zero_shard
    several: Arguments = {"num-distributed-optimizer-instances": copies} if copies > 1 else {}
    if layout.zero_stage == 1:
        return {"use-distributed-optimizer": True, **several}
    return {
        "use-distributed-optimizer": True,
        "use-megatron-fsdp": True,
        "data-parallel-sharding-strategy": SHARDING[layout.zero_stage],
        "ckpt-format": "fsdp_dtensor",
        "no-gradient-accumulation-fusion": True,
        **several,
    }


def _recompute(plan: Plan, layout: Layout) -> Arguments:
    if layout.recompute is Recompute.NONE:
        return {}
    if layout.recompute is Recompute.SELECTIVE:
        modules = tuple(MODULES[module] for module in plan.inputs.stack.entry.selective_recompute)
        return {"recompute-granularity": "selective", "recompute-modules": modules}
    count = recomputed_layers(layout)
    method: Arguments = (
        {"recompute-method": "uniform", "recompute-num-layers": 1}
        if count is None
        else {"recompute-method": "block", "recompute-num-layers": count}
    )
    return {"recompute-granularity": "full", **method}


def recomputed_layers(layout: Layout) -> int | None:
    """Give how many layers of each chunk are recomputed; None where all are."""
    return layout.recompute_split[0] if layout.recompute_split else layout.recompute_layers
