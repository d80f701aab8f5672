"""In which order the stages of pipelines of chunks in rounds run their passes, as the papers have it."""

from meshwright.planner.verification.pipeline.passes import Orders, alone


def gpipe(stages: int, count: int) -> Orders:
    """Give GPipe: all forward passes, then all backward passes (arXiv 1811.06965)."""
    return [
        alone(*(("F", batch, stage) for batch in range(count)), *(("B", batch, stage) for batch in range(count)))
        for stage in range(stages)
    ]


def one_chunk(stages: int, count: int, *, slack: int = 1, splits: bool = False) -> Orders:
    """Give 1F1B; with weight gradients split off ZB-H1, with a slack of 2 ZB-H2 (arXiv 2401.10241, figures 2, 3)."""
    orders = []
    for stage in range(stages):
        warm, delay, put_off = min(slack * (stages - 1 - stage), count), slack * stage, 0
        order = alone(*(("F", batch, stage) for batch in range(warm)))
        for batch in range(count):
            order += alone(("F", warm + batch, stage)) if warm + batch < count else []
            order += alone(("B", batch, stage))
            if splits and batch >= delay:
                order += alone(("W", put_off, stage))
                put_off += 1
        orders.append(order + alone(*(("W", batch, stage) for batch in range(put_off, count) if splits)))
    return orders


def interleaved(stages: int, count: int, *, chunks: int) -> Orders:
    """Give Megatron's order: micro-batches go through chunk after chunk in blocks as long as the pipeline.

    What is left of them, fewer than stages, goes with the first block, as none may be shorter than the pipeline
    (Megatron-Core's microbatch_group_size_per_vp_stage).
    """
    largest = min(count, stages + count % stages)

    def nth(kind: str, number: int, stage: int) -> tuple[str, int, int]:
        block, place = divmod(number - largest * chunks, stages * chunks)
        first, size = (largest + block * stages, stages) if block >= 0 else (0, largest)
        chunk, batch = divmod(place if block >= 0 else number, size)
        return kind, first + batch, (chunks - 1 - chunk if kind == "B" else chunk) * stages + stage

    passes = count * chunks
    orders = []
    for stage in range(stages):
        warm = min(passes, 2 * (stages - 1 - stage) + (chunks - 1) * largest)
        order = alone(*(nth("F", number, stage) for number in range(warm)))
        for number in range(passes):
            order += alone(nth("F", warm + number, stage)) if warm + number < passes else []
            order += alone(nth("B", number, stage))
        orders.append(order)
    return orders
