"""Linear attention, which no target has."""

from collections.abc import Iterator

from meshwright.catalog.model_entry import ModelEntry
from meshwright.planner.emission.obstacle import Obstacle


def without_linear_attention(entry: ModelEntry) -> Iterator[Obstacle]:
    """Give the obstacle of a model any of whose layers attend linearly; no layout does without."""
    if entry.linear_attention is not None:
        yield Obstacle(path="inputs.model.entry.linear_attention", feature="has no linear attention")
