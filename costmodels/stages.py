"""Which layers each pipeline stage holds.

Layers are cut into `pipeline_parallel * virtual_pipeline` contiguous chunks; chunk c is on stage c mod
pipeline_parallel. Chunk sizes differ by one at most, and the smaller ones are those at the two ends, last before
first, where the head and the
embedding also are: 126 layers on 16 stages give 7, 8, ..., 8, 7. The chunks at the ends may hold nothing but
embedding or head, as in 126 layers on 16 stages of 8 chunks.
"""


def chunk_sizes(layers: int, chunks: int) -> tuple[int, ...]:
    """Give the number of layers of each chunk, in model order.

    Raises ValueError where there are more chunks than layers, embedding and head.
    """
    if not 1 <= chunks <= layers + 2:
        raise ValueError(f"{layers} layers can't be cut into {chunks} chunks")
    small, missing = divmod(layers, chunks)[0], -layers % chunks
    by_distance_to_an_end = sorted(range(chunks), key=lambda chunk: (min(chunk, chunks - 1 - chunk), -chunk))
    smaller = set(by_distance_to_an_end[:missing])
    return tuple(small if chunk in smaller or not missing else small + 1 for chunk in range(chunks))


def stage_layers(layers: int, pipeline_parallel: int, virtual_pipeline: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Give for each stage its chunks, each a tuple of layer numbers from 0.

    Raises ValueError where there are more chunks than layers, embedding and head.
    """
    stages: list[list[tuple[int, ...]]] = [[] for _ in range(pipeline_parallel)]
    first = 0
    for chunk, size in enumerate(chunk_sizes(layers, pipeline_parallel * virtual_pipeline)):
        stages[chunk % pipeline_parallel].append(tuple(range(first, first + size)))
        first += size
    return tuple(tuple(chunks) for chunks in stages)
