"""Every layer is on exactly one stage (on two under DualPipe), in the chunk where the schedule looks for it."""

from collections import Counter

from meshwright.catalog.schedule import Schedule
from meshwright.planner.plan_schema import Plan
from meshwright.planner.verification.check import Failures, Found, numbers
from meshwright.planner.verification.pipeline.schedules import placed_chunks


def layers(plan: Plan) -> Found:
    """Check that stages hold each of the model's layers once, or twice under DualPipe."""
    copies = 2 if plan.layout.schedule is Schedule.DUAL_PIPE else 1
    count = plan.inputs.model.entry.layers
    what = f"{count} layers {'twice' if copies > 1 else 'once'} on {len(plan.stages)} stages"
    return what, _layers(plan, count, copies)


def _layers(plan: Plan, count: int, copies: int) -> Failures:
    if len(plan.stages) != plan.layout.pipeline_parallel:
        yield "stages", f"are {len(plan.stages)}; the layout has {plan.layout.pipeline_parallel}"
    held: Counter[int] = Counter()
    for number, stage in enumerate(plan.stages):
        if stage.stage != number:
            yield f"stages.{number}.stage", f"is {stage.stage}; stages are numbered from 0 as they follow one another"
        for place, (first, last) in enumerate(stage.chunks):
            if first > last:
                yield f"stages.{number}.chunks.{place}", f"goes from layer {first} back to {last}"
            held.update(range(first, last + 1))
    lost = [layer for layer in range(count) if held[layer] < copies]
    double = sorted(layer for layer, times in held.items() if times > copies and layer < count)
    beyond = sorted(layer for layer in held if layer >= count)
    if lost:
        short = "no stage" if not any(held[layer] for layer in lost) else "too few stages"
        yield "stages", f"layers {numbers(lost)} of the model are on {short}"
    for path, wrong, told in (
        (double, double, "twice" if copies == 1 else "more than twice"),
        (beyond, beyond, f"though the model has {count}"),
    ):
        if wrong:
            yield _holder(plan, path[-1]), f"layers {numbers(wrong)} are held {told}"


def _holder(plan: Plan, layer: int) -> str:
    """Give the path of the last chunk that has a layer."""
    return [
        f"stages.{number}.chunks.{place}"
        for number, stage in enumerate(plan.stages)
        for place, (first, last) in enumerate(stage.chunks)
        if first <= layer <= last
    ][-1]


def chunks(plan: Plan) -> Found:
    """Check that chunks are where the schedule looks for them, as large as the split says, with ends at the ends."""
    layout = plan.layout
    each = 2 if layout.schedule is Schedule.DUAL_PIPE else layout.virtual_pipeline
    return f"{each} a stage, as {layout.schedule} places them; embedding first, head last", _chunks(plan)


def _chunks(plan: Plan) -> Failures:
    layout, count = plan.layout, plan.inputs.model.entry.layers
    if layout.pipeline_parallel * layout.virtual_pipeline > count:
        told = f"is {layout.virtual_pipeline}; {count} layers don't fill as many chunks"
        yield "layout.virtual_pipeline", f"{told} on each of {layout.pipeline_parallel} stages"
        return
    try:
        placed = placed_chunks(layout.schedule, stages=layout.pipeline_parallel, chunks=layout.virtual_pipeline)
    except ValueError as error:
        yield "layout.virtual_pipeline", str(error)
        return
    ranges: dict[int, tuple[int, int]] = {}
    for number, (stage, own) in enumerate(zip(plan.stages, placed, strict=True)):
        if len(stage.chunks) != len(own):
            yield f"stages.{number}.chunks", f"are {len(stage.chunks)}; {layout.schedule} has {len(own)} a stage"
            return
        for place, chunk in enumerate(own):
            if ranges.setdefault(chunk, stage.chunks[place]) != stage.chunks[place]:
                path = f"stages.{number}.chunks.{place}"
                yield path, f"holds other layers than the other copy of the model's chunk {chunk}"
    yield from _in_order(placed, ranges)
    yield from _sizes(plan, ranges)
    yield from _ends(plan, placed, last=len(ranges) - 1)


def _in_order(placed: list[list[int]], ranges: dict[int, tuple[int, int]]) -> Failures:
    """Walk the model chunk by chunk: each begins with the layer behind the one before."""
    where = {chunk: (stage, own.index(chunk)) for stage, own in reversed(list(enumerate(placed))) for chunk in own}
    following = 0
    for chunk in range(len(ranges)):
        first, last = ranges[chunk]
        if first != following:
            stage, place = where[chunk]
            path = f"stages.{stage}.chunks.{place}"
            yield path, f"begins with layer {first}; it is the model's chunk {chunk}, which begins with {following}"
            return
        following = last + 1


def _sizes(plan: Plan, ranges: dict[int, tuple[int, int]]) -> Failures:
    layout = plan.layout
    sizes = [ranges[chunk][1] - ranges[chunk][0] + 1 for chunk in range(len(ranges))]
    if layout.split and list(layout.split) != sizes:
        yield "layout.split", f"is {numbers(layout.split)}; the stages hold chunks of {numbers(sizes)}"
    if not layout.split and max(sizes) - min(sizes) > 1:
        yield "layout.split", f"is empty, for an even cut; the stages hold chunks of {numbers(sizes)}"
    sizes[-1] += plan.inputs.model.entry.mtp_layers
    recomputed = layout.recompute_split
    if recomputed and (len(recomputed) != len(sizes) or any(a > b for a, b in zip(recomputed, sizes, strict=False))):
        yield "layout.recompute_split", f"is {numbers(recomputed)} layers of chunks of {numbers(sizes)}"


def _ends(plan: Plan, placed: list[list[int]], *, last: int) -> Failures:
    everywhere = plan.layout.vocabulary_parallel
    for number, (stage, own) in enumerate(zip(plan.stages, placed, strict=True)):
        for name, has, chunk in (("embedding", stage.embedding, 0), ("head", stage.head, last)):
            if has != (everywhere or chunk in own):
                told = (
                    "shared by all stages"
                    if everywhere
                    else f"with the model's {'first' if not chunk else 'last'} chunk"
                )
                yield f"stages.{number}.{name}", f"is {str(has).lower()}; the {name} is {told}"


def experts(plan: Plan) -> Found:
    """Check that in each expert group each expert of a layer is on exactly one rank."""
    entry, ranks = plan.inputs.model.entry.experts, plan.layout.expert_parallel
    if entry is None:
        return "the model has none", _no_experts(plan)
    return f"{entry.experts} experts of a layer over {ranks} ranks, each on one", _experts(plan, entry.experts)


def _no_experts(plan: Plan) -> Failures:
    for name in ("expert_parallel", "expert_tensor_parallel"):
        degree = getattr(plan.layout, name)
        if degree > 1:
            yield f"layout.{name}", f"is {degree}; the model has no experts"


def _experts(plan: Plan, count: int) -> Failures:
    ranks, path = plan.layout.expert_parallel, "mesh.groups.expert.stride"
    expert, pipeline = plan.mesh.groups["expert"], plan.mesh.groups["pipeline"]
    each = count // ranks
    held = Counter(place * each + number for place in range(ranks) for number in range(each))
    wrong = [number for number in range(count) if held[number] != 1]
    if wrong:
        told = f"{ranks} ranks of {each} experts each don't hold experts {numbers(wrong)} of {count}"
        yield "layout.expert_parallel", told
    for first in range(plan.mesh.devices):
        if first // expert.stride % ranks:
            continue
        members = [first + position * expert.stride for position in range(ranks)]
        if {rank // expert.stride % ranks for rank in members} != set(range(ranks)):
            yield path, f"is {expert.stride}, by which ranks {numbers(members)} hold the same experts"
            return
        if len({rank // pipeline.stride for rank in members}) > 1:
            yield path, f"is {expert.stride}; the expert group of rank {first} has ranks of two stages"
            return
