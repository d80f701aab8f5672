"""Degrees fill the islands, layers are dealt to stages once, and layouts say of them what the stages do."""

from collections.abc import Iterable
from typing import Any

from meshwright.planner.mixed.plan_schema import ChainSection, MixedPlan
from meshwright.planner.plan_schema import Inputs, LayoutSection, Plan, StageSection
from meshwright.planner.verification.check import Failures, Found
from meshwright.planner.verification.placement import chunks, layers
from meshwright.planner.verification.shards import shards

# Fields of a layout with one value, which limits may be on.
SINGLE = (
    "tensor_parallel",
    "sequence_parallel",
    "context_parallel",
    "data_parallel",
    "expert_parallel",
    "expert_tensor_parallel",
    "zero_stage",
    "schedule",
    "recompute",
    "micro_batch",
)


def degrees(plan: MixedPlan) -> Found:
    """Check that each layout's degrees multiply to its island's devices, and what is sharded is in whole parts."""
    count = sum(len(chain.layouts) for chain in plan.mixed.chains)
    return f"the degrees of {count} layouts fill their islands", _degrees(plan)


def _degrees(plan: MixedPlan) -> Failures:
    for number, chain in enumerate(plan.mixed.chains):
        for position, (island, layout) in enumerate(zip(chain.islands, chain.layouts, strict=True)):
            where = f"mixed.chains.{number}.layouts.{position}"
            yield from _ranks(plan, layout, where, have=plan.mixed.islands[island].devices)
            yield from _context(plan, layout, where)
            most = max(sum(last - first + 1 for first, last in stage.chunks) for stage in chain.stages)
            if (layout.recompute_layers or 0) > most:
                yield f"{where}.recompute_layers", f"is {layout.recompute_layers}; a stage has {most} layers at most"
            for field in ("data_parallel", "context_parallel", "context_method", "micro_batch"):
                if getattr(layout, field) != getattr(chain.layouts[0], field):
                    yield f"{where}.{field}", "differs from that of the chain's first island"
            yield from _fields(layout, where)
            yield from _renamed(shards(_plain(plan, layout, chain))[1], where, where)
            yield from _as_asked(plan, layout, where)


def _ranks(plan: MixedPlan, layout: LayoutSection, where: str, *, have: int) -> Failures:
    """Check that ranks are all the island's devices, and what experts take of those of a stage."""
    experts = plan.inputs.model.entry.experts
    inside = layout.tensor_parallel * layout.context_parallel * layout.data_parallel
    if inside * layout.pipeline_parallel != have:
        yield where, f"{inside} x {layout.pipeline_parallel} ranks aren't the island's {have} devices"
    if inside % (layout.expert_parallel * layout.expert_tensor_parallel):
        yield f"{where}.expert_parallel", "expert groups don't divide the ranks of a stage"
    held = 1 if experts is None else experts.experts
    if held % layout.expert_parallel or (experts is None and layout.expert_tensor_parallel > 1):
        yield f"{where}.expert_parallel", f"{layout.expert_parallel} ranks don't share {held} experts evenly"


def _context(plan: MixedPlan, layout: LayoutSection, where: str) -> Failures:
    """Check how sequences are cut."""
    if layout.context_parallel % layout.ulysses_parallel:
        yield f"{where}.ulysses_parallel", "doesn't divide the context ranks"
    if layout.ulysses_parallel > 1 and str(layout.context_method) != "hybrid":
        told = f"is {layout.ulysses_parallel} by {layout.context_method}"
        yield f"{where}.ulysses_parallel", f"{told}; it is 1 but where the context method is hybrid"
    parts = layout.context_parallel * (layout.tensor_parallel if layout.sequence_parallel else 1)
    if plan.inputs.job.sequence_length % parts:
        yield f"{where}.context_parallel", f"{plan.inputs.job.sequence_length} tokens aren't cut into {parts}"


def _fields(layout: LayoutSection, where: str) -> Failures:
    """Check fields of a layout that take others for granted."""
    for field, there, needs, has in (
        ("sequence_parallel", layout.sequence_parallel, "several tensor ranks", layout.tensor_parallel > 1),
        ("vocabulary_parallel", layout.vocabulary_parallel, "several stages", layout.pipeline_parallel > 1),
        ("recompute_layers", layout.recompute_layers, "recomputation", str(layout.recompute) != "none"),
        ("recompute_split", layout.recompute_split, "recomputation", str(layout.recompute) != "none"),
        ("recompute_split", layout.recompute_split, "recompute_layers to be null", layout.recompute_layers is None),
        ("gradient_shard", layout.gradient_shard, "ZeRO", layout.zero_stage > 0),
        ("parameter_shard", layout.parameter_shard, "ZeRO", layout.zero_stage > 0),
        ("backward_shard", layout.backward_shard, "ZeRO-3", layout.zero_stage == 3),
        ("zero_shard", layout.zero_shard > 1, "ZeRO", layout.zero_stage > 0),
    ):
        if there and not has:
            yield f"{where}.{field}", f"is {getattr(layout, field)}, which needs {needs}"


def _as_asked(plan: MixedPlan, layout: LayoutSection, where: str) -> Failures:
    """Check what the user fixed, forbade or bounded of fields that have one value a layout."""
    limits = plan.inputs.job.limits
    for field in SINGLE:
        value = getattr(layout, field)
        if field in limits.fix and value != limits.fix[field]:
            yield f"{where}.{field}", f"is {value}; {limits.fix[field]} was asked for"
        if value in limits.forbid.get(field, ()):
            yield f"{where}.{field}", f"is {value}, which was forbidden"
        if field in limits.max and int(value) > limits.max[field]:
            yield f"{where}.{field}", f"is {value}; at most {limits.max[field]} was asked for"


def placement(plan: MixedPlan) -> Found:
    """Check that stages hold each layer once, where the schedule looks for it, as many as the layouts say."""
    count = plan.inputs.model.entry.layers
    return f"{count} layers once in each of {len(plan.mixed.chains)} chains", _placement(plan)


def _placement(plan: MixedPlan) -> Failures:
    for number, chain in enumerate(plan.mixed.chains):
        where = f"mixed.chains.{number}"
        told = sum(layout.pipeline_parallel for layout in chain.layouts)
        if len(chain.stages) != told:
            yield f"{where}.stages", f"are {len(chain.stages)}; the layouts have {told}"
            continue
        expected = [
            island
            for island, layout in zip(chain.islands, chain.layouts, strict=True)
            for _ in range(layout.pipeline_parallel)
        ]
        if [stage.island for stage in chain.stages] != expected:
            yield (
                f"{where}.stages",
                "aren't on the islands in the order of the chain, as many on each as its layout says",
            )
            continue
        if len(chain.islands) > 1:
            yield from _of_several(chain, where)
        else:
            yield from _of_one(chain, where)
        joint = _joint(chain)
        lost = list(layers(_plain(plan, joint, chain))[1])
        yield from _renamed(lost, f"{where}.stages", f"{where}.layouts")
        if not lost:
            yield from _renamed(chunks(_plain(plan, joint, chain))[1], f"{where}.stages", f"{where}.layouts")


def _of_several(chain: ChainSection, where: str) -> Failures:
    """Check what a chain of several islands says of its stages: one chunk each, and how much of it is recomputed."""
    for number, stage in enumerate(chain.stages):
        if stage.recomputed is None or len(stage.recomputed) != len(stage.chunks) or stage.end_s is None:
            yield f"{where}.stages.{number}.recomputed", "and end_s are told of each stage of several islands"
            return
    for position, (island, layout) in enumerate(zip(chain.islands, chain.layouts, strict=True)):
        own = [stage for stage in chain.stages if stage.island == island]
        again = tuple(count for stage in own for count in stage.recomputed or ())
        for field, told, wanted in (
            ("split", layout.split, tuple(last - first + 1 for stage in own for first, last in stage.chunks)),
            ("recompute_split", layout.recompute_split, again if any(again) else ()),
            ("recompute", str(layout.recompute), "full" if any(again) else "none"),
            ("schedule", str(layout.schedule), "1f1b"),
            ("virtual_pipeline", layout.virtual_pipeline, 1),
            ("zero_stage", layout.zero_stage, int(layout.data_parallel * layout.context_parallel > 1)),
            ("zero_shard", layout.zero_shard, layout.data_parallel * layout.context_parallel),
            ("gradient_shard", layout.gradient_shard, None),
            ("parameter_shard", layout.parameter_shard, None),
            ("recompute_layers", layout.recompute_layers, None),
            ("vocabulary_parallel", layout.vocabulary_parallel, False),
        ):
            if told != wanted:
                yield f"{where}.layouts.{position}.{field}", f"is {told}; the island's stages are of {wanted}"


def _of_one(chain: ChainSection, where: str) -> Failures:
    for number, stage in enumerate(chain.stages):
        if stage.recomputed is not None or stage.end_s is not None:
            yield f"{where}.stages.{number}.recomputed", "and end_s are told of stages of several islands alone"
            return
    if chain.buffered or chain.crossing_s:
        yield f"{where}.crossing_s", "and buffered are of chains of several islands alone"


def _joint(chain: ChainSection) -> LayoutSection:
    """Give the one layout that a chain's pipeline has in all."""
    first = chain.layouts[0]
    if len(chain.layouts) == 1:
        return first
    return first.model_copy(
        update={
            "pipeline_parallel": len(chain.stages),
            "split": tuple(count for layout in chain.layouts for count in layout.split),
            "recompute_split": (),
        }
    )


def _plain(plan: MixedPlan, layout: LayoutSection, chain: ChainSection) -> Plan:
    """Give what of a plain plan checks of one layout look at."""
    stages = tuple(
        StageSection(stage=stage.stage, chunks=stage.chunks, embedding=stage.embedding, head=stage.head)
        for stage in chain.stages
    )
    inputs: dict[str, Any] = {"job": plan.inputs.job, "model": plan.inputs.model}
    sections: dict[str, Any] = {"layout": layout, "stages": stages, "inputs": Inputs.model_construct(**inputs)}
    return Plan.model_construct(**sections)


def _renamed(failures: Iterable[tuple[str, str]], stages: str, layout: str) -> Failures:
    for path, message in failures:
        head, _, rest = path.partition(".")
        yield f"{stages if head == 'stages' else layout}{'.' if rest else ''}{rest}", message
