"""Which layers each pipeline stage holds.

Layers are cut into contiguous chunks, `virtual_pipeline` a stage (two under DualPipe, which has each chunk on two
stages), and the schedule places them:

    in rounds      chunk c on stage c mod P                                all but those below
    folded         chunks s and 2 P - 1 - s on stage s                     V-Half, V-Min, ZBV, DualPipeV
    mirrored       of P chunks s and P - 1 - s on stage s                  DualPipe

A layout may say how many layers each chunk holds; else their sizes differ by one at most, and the smaller ones are
those at the two ends, last before first, where the head and the embedding also are: 126 layers on 16 stages give 7, 8,
..., 8, 7. The chunks at the ends may hold nothing but embedding or head, as in 126 layers on 16 stages of 8 chunks.
"""

from dataclasses import dataclass

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.layout import Layout, Recompute

FOLDED = (Schedule.V_HALF, Schedule.V_MIN, Schedule.ZERO_BUBBLE_V, Schedule.DUAL_PIPE_V)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageChunks:
    """What a stage holds: for each of its chunks the layers, numbered from 0, and whether embedding and head.

    recomputed: how many layers of each chunk, from its first one on, are recomputed; None where all are.
    """

    layers: tuple[tuple[int, ...], ...]
    recomputed: tuple[int | None, ...]
    embedding: tuple[bool, ...]
    head: tuple[bool, ...]


def chunk_sizes(layers: int, chunks: int) -> tuple[int, ...]:
    """Give the number of layers of each chunk, in model order, cut evenly.

    Raises ValueError where there are more chunks than layers, embedding and head.
    """
    if not 1 <= chunks <= layers + 2:
        raise ValueError(f"{layers} layers can't be cut into {chunks} chunks")
    small, missing = divmod(layers, chunks)[0], -layers % chunks
    by_distance_to_an_end = sorted(range(chunks), key=lambda chunk: (min(chunk, chunks - 1 - chunk), -chunk))
    smaller = set(by_distance_to_an_end[:missing])
    return tuple(small if chunk in smaller or not missing else small + 1 for chunk in range(chunks))


def chunks_of_stage(layout: Layout, stage: int) -> tuple[int, ...]:
    """Give the numbers of a stage's chunks, in the order in which the first micro-batch meets them."""
    stages = layout.pipeline_parallel
    if layout.schedule is Schedule.DUAL_PIPE:
        return (stage, stages - 1 - stage)
    if layout.schedule in FOLDED:
        return (stage, 2 * stages - 1 - stage)
    return tuple(range(stage, stages * layout.virtual_pipeline, stages))


def ends_of_stage(layout: Layout, stage: int) -> tuple[bool, bool]:
    """Tell whether a stage has the embedding and the head, or a share of them."""
    own = chunks_of_stage(layout, stage)
    last = layout.pipeline_parallel * layout.virtual_pipeline - 1
    return layout.vocabulary_parallel or 0 in own, layout.vocabulary_parallel or last in own


def stage_chunks(layers: int, layout: Layout, *, mtp_layers: int = 0) -> tuple[StageChunks, ...]:
    """Give for each stage what it holds of a model of so many layers, and MTP modules on the chunk of the head.

    Raises ValueError where there are more chunks than layers, embedding and head, where the layout's own split isn't
    one of the model's layers into its chunks, where it recomputes more layers of a chunk than that has, and where the
    schedule can't place so many chunks.
    """
    _check_placement(layout)
    chunks = layout.pipeline_parallel * layout.virtual_pipeline
    sizes = layout.split or chunk_sizes(layers, chunks)
    if (len(sizes), sum(sizes)) != (chunks, layers):
        raise ValueError(f"chunks of {', '.join(map(str, sizes))} layers aren't {layers} layers in {chunks} chunks")
    recomputed = _recomputed(layout, (*sizes[:-1], sizes[-1] + mtp_layers))
    firsts = [sum(sizes[:chunk]) for chunk in range(chunks)]
    held = [tuple(range(first, first + size)) for first, size in zip(firsts, sizes, strict=True)]
    stages = [chunks_of_stage(layout, stage) for stage in range(layout.pipeline_parallel)]
    return tuple(
        StageChunks(
            layers=tuple(held[chunk] for chunk in own),
            recomputed=tuple(recomputed[chunk] for chunk in own),
            embedding=tuple(chunk == 0 for chunk in own),
            head=tuple(chunk == chunks - 1 for chunk in own),
        )
        for own in stages
    )


def _recomputed(layout: Layout, sizes: tuple[int, ...]) -> tuple[int | None, ...]:
    counts = layout.recompute_split
    if not counts:
        return (None,) * len(sizes)
    if len(counts) != len(sizes) or any(count > size for count, size in zip(counts, sizes, strict=True)):
        chunks = ", ".join(map(str, sizes))
        raise ValueError(f"{', '.join(map(str, counts))} layers can't be recomputed of chunks of {chunks} layers")
    if layout.recompute is Recompute.NONE or layout.recompute_layers is not None:
        raise ValueError("which layers of each chunk are recomputed goes with selective or full recomputation alone")
    return counts


def _check_placement(layout: Layout) -> None:
    if layout.schedule in FOLDED and layout.virtual_pipeline != 2:
        raise ValueError(f"{layout.schedule} needs two chunks a stage, not {layout.virtual_pipeline}")
    if layout.schedule is Schedule.DUAL_PIPE and (layout.virtual_pipeline != 1 or layout.pipeline_parallel % 2):
        stages, chunks = layout.pipeline_parallel, layout.virtual_pipeline
        raise ValueError(f"dualpipe needs an even number of stages of one chunk, held twice, not {stages} of {chunks}")
