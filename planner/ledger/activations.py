"""The most that forward passes keep for backward passes at once, on one rank, pass by pass of a step.

A forward pass adds what its chunk keeps, and a backward pass takes it away. One that is split takes what stands behind
a chunk's last weights by its inputs, and all else by its weights: what leads to them is asked for again. In the first
chunk PyTorch does both halves by weights. Words are kept once for all micro-batches, and so are targets.
"""

from meshwright.planner.ledger.passes import Kind, passes_of
from meshwright.planner.ledger.saved_tensors import batch_bytes, chunk_saved
from meshwright.planner.ledger.workload import Workload
from meshwright.planner.ranks import RankPlan

# By kind of pass: how many micro-batches more are kept within a chunk, and of what stands behind its last weights.
STEPS = {Kind.FORWARD: (1, 1), Kind.BACKWARD: (-1, -1), Kind.INPUTS: (0, -1), Kind.WEIGHTS: (-1, 0)}
STEPS_OF_FIRST = STEPS | {Kind.INPUTS: (0, 0), Kind.WEIGHTS: (-1, -1)}


def activation_bytes(workload: Workload, rank: RankPlan) -> int:
    """Give the bytes of a rank's peak, as the launcher counts them: distinct storages that autograd saves."""
    chunks, batch = workload.chunks(rank.stage), batch_bytes(workload)
    saved = [chunk_saved(workload, rank, chunk) for chunk in chunks]
    inner, outer, peak_bytes = [0] * len(chunks), [0] * len(chunks), 0
    for kind, turn in passes_of(workload, rank.stage):
        within, behind = (STEPS_OF_FIRST if chunks[turn].first else STEPS)[kind]
        inner[turn] += within
        outer[turn] += behind
        held_bytes = sum(
            own.inner_bytes * within + own.outer_bytes * behind
            for own, within, behind in zip(saved, inner, outer, strict=True)
        )
        words = any(chunk.first and kept for chunk, kept in zip(chunks, inner, strict=True))
        targets = any(chunk.last and kept for chunk, kept in zip(chunks, outer, strict=True))
        peak_bytes = max(peak_bytes, held_bytes + batch * (words + targets))
    return peak_bytes
