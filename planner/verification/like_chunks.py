"""Like chunks take the same time, and one of more layers of a kind as much more.

What a chunk of layers alone takes forward goes with their number. Of other chunks those are compared that hold the
same, and backward those whose stages hold the same too, since a stage's gradients are added up together.
"""

from meshwright.planner.plan_schema import Plan
from meshwright.planner.verification.check import Failures, Found, same
from meshwright.planner.verification.pipeline.schedules import placed_chunks

Kind = tuple[bool, bool, bool]
Kinds = tuple[Kind, ...]
"""Of each layer whether it has experts, whether no window limits it, and whether it attends with softmax."""

Holds = tuple[Kinds, bool, bool, int | None]
"""The layers of a chunk, whether embedding and head, and how many layers are recomputed where the layout says."""


def shapes(plan: Plan) -> Found:
    """Check that passes are given for each chunk of each stage."""
    given = {name: getattr(plan.predicted.passes, name) for name in ("forward_s", "backward_s", "weight_s", "paired_s")}
    what = f"{sum(len(stage.chunks) for stage in plan.stages)} chunks"
    return f"{what} have {', '.join(name for name, times in given.items() if times is not None)}", _shapes(plan, given)


def _shapes(plan: Plan, given: dict[str, tuple[tuple[float, ...], ...] | None]) -> Failures:
    for name, times in given.items():
        path = f"predicted.passes.{name}"
        if times is None:
            continue
        if len(times) != len(plan.stages):
            yield path, f"is of {len(times)} stages; the plan has {len(plan.stages)}"
            continue
        for number, (stage, own) in enumerate(zip(plan.stages, times, strict=True)):
            if len(own) != len(stage.chunks):
                yield f"{path}.{number}", f"is of {len(own)} chunks; the stage has {len(stage.chunks)}"


def like_chunks(plan: Plan) -> Found:
    """Check that like chunks take the same time."""
    held = _held(plan)
    return f"{len({hold for own in held for hold in own})} kinds of chunks take their time each", _failures(plan, held)


def _held(plan: Plan) -> list[list[Holds]]:
    """Give what each chunk of each stage holds."""
    layout, last = plan.layout, plan.layout.pipeline_parallel * plan.layout.virtual_pipeline - 1
    placed = placed_chunks(layout.schedule, stages=layout.pipeline_parallel, chunks=layout.virtual_pipeline)
    held = []
    for stage, own in zip(plan.stages, placed, strict=True):
        holds: list[Holds] = []
        for place, (chunk, (first, end)) in enumerate(zip(own, stage.chunks, strict=True)):
            kinds = tuple(_kind(plan, layer) for layer in range(first, end + 1))
            embedding = place == 0 if layout.vocabulary_parallel else chunk == 0
            head = place == len(own) - 1 if layout.vocabulary_parallel else chunk == last
            recomputed = layout.recompute_split[chunk] if layout.recompute_split else None
            if chunk == last:  # that of MTP modules, which are as the last layer
                kinds += kinds[-1:] * plan.inputs.model.entry.mtp_layers
            holds.append((kinds, embedding, head, recomputed))
        held.append(holds)
    return held


def _kind(plan: Plan, layer: int) -> Kind:
    model = plan.inputs.model.entry
    mixed, behind = model.experts, 0 if model.experts is None else layer - model.experts.dense_layers
    mixture = mixed is not None and behind >= 0 and behind % mixed.layer_frequency == 0
    linear = model.linear_attention
    softmax = linear is None or (linear.frequency > 0 and (layer + 1) % linear.frequency == 0)
    whole = softmax and model.window_frequency > 0 and (layer + 1) % model.window_frequency == 0
    return mixture, whole, softmax


def _failures(plan: Plan, held: list[list[Holds]]) -> Failures:
    passes = plan.predicted.passes
    known: dict[tuple[str, object], tuple[str, float]] = {}
    for number, own in enumerate(held):
        for place, hold in enumerate(own):
            kinds, embedding, head, _ = hold
            alone = len(set(kinds)) == 1 and not embedding and not head
            looks: list[tuple[str, object, float]] = [
                ("forward_s", (kinds[0],) if alone else hold[:3], len(kinds) if alone else 1.0),
                ("backward_s", (hold, tuple(own)), 1.0),
                ("weight_s", (hold, tuple(own)), 1.0),
                ("paired_s", hold[:3], 1.0),
            ]
            for name, key, share in looks:
                times = getattr(passes, name)
                if times is None:
                    continue
                path, each_s = f"predicted.passes.{name}.{number}.{place}", times[number][place] / share
                first, expected_s = known.setdefault((name, key), (path, each_s))
                if not same(each_s, expected_s):
                    yield path, f"is {times[number][place]} s, out of proportion to the like layers of {first}"
