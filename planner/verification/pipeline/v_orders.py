"""V-Half and V-Min (arXiv 2405.15362, sections 3 and 4): one micro-batch's passes, repeated, squeezed and reordered.

Times are slots of one pass each. A stage's passes are kept as the slots of its four kinds, F0, F1, B1, B0 in the order
in which a micro-batch meets them, and of weight gradients W, whose order is that of the backward passes.
"""

from meshwright.planner.verification.pipeline.passes import Orders, Pass, Work

Slots = list[list[int]]
PERIOD = 6
F0, F1, B1, B0, W = range(5)


def v_order(stages: int, count: int, *, minimal: bool) -> Orders:
    """Give each stage's order under V-Min, or V-Half."""
    pipeline = [
        [[offset + PERIOD * batch for batch in range(count)] for offset in _offsets(stage, stages, minimal=minimal)]
        for stage in range(stages)
    ]
    pipeline = _reordered([_with_gradients(slots) for slots in pipeline])
    pipeline = _reordered([slots[:W] for slots in pipeline])
    return [_named(_with_gradients(slots[:W]), stage, stages) for stage, slots in enumerate(pipeline)]


def _offsets(stage: int, stages: int, *, minimal: bool) -> tuple[int, int, int, int]:
    """Give the building block: passes of one micro-batch never share a slot with those of the others."""
    if minimal:
        gap = 2 if stages % 3 == 0 else 0
        return stage, 2 * stages - 1 - stage, 2 * stages + gap + stage, 4 * stages + gap - 1 - stage
    gap = 3 if stages % 2 == 0 else 0
    return 2 * stage, 3 * stages - 2 - stage, 3 * stages + gap - 1 + 2 * stage, 6 * stages + gap - 2 - stage


def _with_gradients(slots: Slots) -> Slots:
    """Put weight gradients into the slots that are free, as soon as there are any."""
    taken = {slot for kind in slots for slot in kind}
    backward = set(slots[B1]) | set(slots[B0])
    gradients: list[int] = []
    waiting, slot, end = 0, 0, max(taken)
    while slot <= end or waiting:
        if slot in taken:
            waiting += slot in backward
        elif waiting:
            gradients.append(slot)
            waiting -= 1
        slot += 1
    return [*slots, gradients]


def _most_held(slots: Slots) -> int:
    held = most = 0
    changes = [(slot, change) for kind, change in ((F0, 1), (F1, 1), (W, -1)) for slot in slots[kind]]
    for _, change in sorted(changes):
        held += change
        most = max(most, held)
    return most


def _in_order(pipeline: list[Slots]) -> list[tuple[int, int, int, int]]:
    return sorted(
        (slot, stage, kind, batch)
        for stage, slots in enumerate(pipeline)
        for kind, times in enumerate(slots)
        for batch, slot in enumerate(times)
    )


def _ready(pipeline: list[Slots], stage: int, kind: int, batch: int) -> int:
    """Give the first slot behind all that feeds a pass."""
    slots = pipeline[stage]
    feeds = [slots[kind][batch - 1]] if batch else []
    if kind == W:
        feeds.append(sorted(slots[B1] + slots[B0])[batch])
    elif kind > F0:
        feeds.append(slots[kind - 1][batch])
    neighbour = stage - 1 if kind in (F0, B1) else stage + 1
    if kind != W and 0 <= neighbour < len(pipeline):
        feeds.append(pipeline[neighbour][kind][batch])
    return max(feeds, default=-1) + 1


def _reordered(pipeline: list[Slots]) -> list[Slots]:
    """Move passes of fill and drain to the first free slot at which memory stays what it is, then squeeze.

    Fill ends with the first stage's first way back, drain begins with its last way out. Where weight gradients aren't
    placed yet, fill stays as it is.
    """
    placed = len(pipeline[0]) > W
    pipeline = [[list(times) for times in slots] for slots in pipeline]
    most = max(_most_held(slots if placed else _with_gradients(slots)) for slots in pipeline)
    taken: list[set[int]] = [set() for _ in pipeline]
    filling, draining = True, False
    for slot, stage, kind, batch in _in_order(pipeline):
        filling = filling and (stage, kind) != (0, B0)
        if draining or (filling and placed):
            _advance(pipeline, taken[stage], (slot, stage, kind, batch), most=most, placed=placed)
        draining = draining or (not filling and (stage, kind, batch) == (0, F0, len(pipeline[0][F0]) - 1))
        taken[stage].add(pipeline[stage][kind][batch])
    return _squeezed(pipeline if placed else [_with_gradients(slots) for slots in pipeline])


def _advance(
    pipeline: list[Slots], taken: set[int], what: tuple[int, int, int, int], *, most: int, placed: bool
) -> None:
    """Move a pass; once gradients are placed, only forward passes make a stage hold more."""
    slot, stage, kind, batch = what
    slots = pipeline[stage]
    for earlier in range(_ready(pipeline, stage, kind, batch), slot):
        if earlier not in taken:
            slots[kind][batch] = earlier
            if (placed and kind >= B1) or _most_held(slots if placed else _with_gradients(slots)) <= most:
                return
    slots[kind][batch] = slot


def _squeezed(pipeline: list[Slots]) -> list[Slots]:
    """Run each pass as soon as its stage and what feeds it are done."""
    squeezed = [[[0] * len(times) for times in slots] for slots in pipeline]
    free = [0] * len(pipeline)
    for _, stage, kind, batch in _in_order(pipeline):
        ready = free[stage] if kind == W else max(free[stage], _ready(squeezed, stage, kind, batch))
        squeezed[stage][kind][batch] = ready
        free[stage] = ready + 1
    return squeezed


def _named(slots: Slots, stage: int, stages: int) -> list[Work]:
    chunks = (stage, 2 * stages - 1 - stage)
    order: list[Work] = []
    waiting: list[Pass] = []
    for _, kind, batch in sorted(
        (slot, kind, batch) for kind, times in enumerate(slots) for batch, slot in enumerate(times)
    ):
        if kind == W:
            order.append((waiting.pop(0),))
            continue
        what = Pass("F" if kind in (F0, F1) else "B", batch, chunks[kind in (F1, B1)])
        order.append((what,))
        if what.kind == "B":
            waiting.append(Pass("W", batch, what.chunk))
    return order
