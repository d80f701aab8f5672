"""How many micro-batches' activations each stage holds at its peak, in units of the stage's own layers.

    GPipe          M
    1F1B, ZB-H1    min(M, P - s)
    ZB-2p          min(M, 2 (P - s) - 1)
    interleaved    min(M V, 2 (P - s - 1) + (V - 1) P + 1) / V   (Megatron-Core's warm-up, plus the one in work)
    V-Half         min(M, floor(P / 2) + 1)
    V-Min          min(M, floor((P + 1) / 3) + 1)
    ZBV            min(M, P)
    DualPipe       min(M, P, and 1 more on the two stages in the middle) / 2, of both chunks
    DualPipeV      min(2 M, 2 P, and 1 more on the last stage) / 2

Vocabulary parallelism holds one more, which waits for the shared head (arXiv 2411.05288, section 5).
"""

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable
from meshwright.costmodels.schedule.codes import (
    DUAL_PIPE,
    DUAL_PIPE_V,
    GPIPE,
    V_HALF,
    V_MIN,
    ZERO_BUBBLE_2P,
    ZERO_BUBBLE_V,
)


def held_micro_batches(layouts: LayoutTable, stage: IntArray, *, total: FloatArray) -> FloatArray:
    """Give the micro-batches whose activations each distinct stage holds at its peak, [layouts, stages].

    Args:
        layouts: the layouts.
        stage: index of each stage, [layouts, stages].
        total: micro-batches of a step, [layouts].

    """
    pipeline = layouts.pipeline_parallel[:, np.newaxis]
    virtual = layouts.virtual_pipeline[:, np.newaxis]
    schedule = layouts.schedule[:, np.newaxis]
    many = total[:, np.newaxis]
    remaining = pipeline - stage
    interleaved = np.minimum(many * virtual, 2 * (remaining - 1) + (virtual - 1) * pipeline + 1) / virtual
    held = np.where(virtual > 1, interleaved, np.minimum(many, remaining))
    middle = (stage == pipeline // 2) | (stage == pipeline // 2 - 1)
    for code, most in (
        (GPIPE, many),
        (ZERO_BUBBLE_2P, 2 * remaining - 1),
        (V_HALF, pipeline // 2 + 1),
        (V_MIN, (pipeline + 1) // 3 + 1),
        (ZERO_BUBBLE_V, pipeline),
        (DUAL_PIPE, (pipeline + middle) / 2),
        (DUAL_PIPE_V, pipeline + (remaining == 1) / 2),
    ):
        held = np.where(schedule == code, np.minimum(many, most), held)
    shared = layouts.vocabulary_parallel[:, np.newaxis] == 1
    return np.asarray(np.where(shared, np.minimum(many, held + 1), held), dtype=np.float64)
