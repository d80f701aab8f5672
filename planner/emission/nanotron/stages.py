"""How Nanotron cuts layers into stages, which its configuration can't say.

It goes through the blocks in order (embedding, layers, norm, head, loss) and adds up what it takes each to cost:
4 heads x head size x hidden + 3 x ffn x hidden for a layer, vocabulary x hidden for the head, nothing for the others. A
stage ends with the block that brings the sum above its share of the total (nanotron/models/base.py, build_model).
"""

from meshwright.catalog.model_entry import ModelEntry


def stage_sizes(entry: ModelEntry, stages: int) -> tuple[int, ...] | None:
    """Give the layers of each stage; None where the head ends up before the last stage."""
    layer = 4 * entry.hidden * entry.hidden + 3 * entry.ffn_hidden * entry.hidden
    total = layer * entry.layers + entry.vocab * entry.hidden
    sizes, stage = [0] * stages, 0
    for number in range(1, entry.layers + 1):
        sizes[stage] += 1
        if layer * number > total * ((stage + 1) / stages):
            stage += 1
    return tuple(sizes) if stage == stages - 1 else None
