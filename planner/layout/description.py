"""A layout in words."""

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.context_method import ContextMethod
from meshwright.costmodels.layout import Layout, Recompute

CONTEXT_WORDS = {
    ContextMethod.RING: "ring",
    ContextMethod.BIDIRECTIONAL_RING: "a ring both ways",
    ContextMethod.ALL_GATHER: "all-gather",
    ContextMethod.ULYSSES: "Ulysses",
}


def describe(layout: Layout) -> str:
    """Give a layout in one line of the field's shorthand, without what is switched off."""
    degrees = (
        ("tp", layout.tensor_parallel),
        ("cp", layout.context_parallel),
        ("pp", layout.pipeline_parallel),
        ("vp", layout.virtual_pipeline),
        ("dp", layout.data_parallel),
        ("ep", layout.expert_parallel),
        ("etp", layout.expert_tensor_parallel),
    )
    by = {"cp": f" by {context_words(layout)}"}
    words = [f"{name} {degree}{by.get(name, '')}" for name, degree in degrees if degree > 1] or ["one device"]
    words += ["data outermost"] if layout.axis_order is AxisOrder.DATA_OUTERMOST else []
    words += ["sequence parallel"] if layout.sequence_parallel else []
    words += _sharding_words(layout) if layout.zero_stage else []
    words += _recompute_words(layout)
    words += [str(layout.schedule)] if layout.pipeline_parallel > 1 else []
    words += [f"chunks of {'-'.join(map(str, layout.split))} layers"] if layout.split else []
    words += ["vocabulary parallel"] if layout.vocabulary_parallel else []
    return ", ".join([*words, f"micro-batch {layout.micro_batch}"])


def context_words(layout: Layout) -> str:
    """Give in words what context ranks exchange."""
    if layout.context_method is ContextMethod.HYBRID:
        return f"Ulysses over {layout.ulysses_parallel} and a ring"
    return CONTEXT_WORDS[layout.context_method]


def _recompute_words(layout: Layout) -> list[str]:
    if layout.recompute is Recompute.NONE:
        return []
    part = recomputed_part(layout)
    return [f"{layout.recompute} recompute {part}" if part else f"{layout.recompute} recompute"]


def recomputed_part(layout: Layout) -> str:
    """Give in words of which layers recomputation is, empty where it is of all or of none."""
    if layout.recompute_split:
        return f"of {'-'.join(map(str, layout.recompute_split))} layers"
    if layout.recompute_layers is None:
        return ""
    layers = "1 layer" if layout.recompute_layers == 1 else f"{layout.recompute_layers} layers"
    return f"of {layers} a chunk" if layout.pipeline_parallel > 1 else f"of {layers}"


def _sharding_words(layout: Layout) -> list[str]:
    hybrid = layout.zero_shard < layout.data_parallel * layout.context_parallel
    stage = f"ZeRO-{layout.zero_stage} over {layout.zero_shard}" if hybrid else f"ZeRO-{layout.zero_stage}"
    return [stage, *narrower_shards(layout)]


def narrower_shards(layout: Layout) -> tuple[str, ...]:
    """Give in words what is sharded over fewer devices than the optimizer states."""
    shards = (
        ("gradients", layout.gradient_shard),
        ("parameters", layout.parameter_shard),
        ("parameters until the backward pass", layout.backward_shard),
    )
    return tuple(f"{what} over {size}" for what, size in shards if size is not None)
