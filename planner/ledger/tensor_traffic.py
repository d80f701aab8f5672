"""What tensor and sequence parallelism exchange: one rank's collectives over its tensor group in a step.

Where tokens are cut between the matrices (arXiv 2205.05198, section 4.2.2), each of attention and MLP gathers a
micro-batch's tokens before its first matrix and scatters the sums behind its second; a backward pass does the converse,
as much again. Without, each sums whole tokens once forwards and once backwards (arXiv 1909.08053, section 3).
Embedding and head do half of that each. Logits are gathered.

A layer that is computed again stops at the last tensor that the backward pass asks for, which is what the MLP's second
matrix is given: the exchange behind it isn't done again. Norms and routers are whole on each rank but see its own
tokens alone, so that their gradients are summed, in fp32 where they add up over micro-batches first.
"""

from collections.abc import Iterator

from meshwright.costmodels.layout import Recompute
from meshwright.costmodels.transformer import Experts
from meshwright.planner.ledger.data_traffic import reductions
from meshwright.planner.ledger.parameters import chunk_units
from meshwright.planner.ledger.transfers import Kind, Transfer
from meshwright.planner.ledger.workload import FLOAT_BYTES, Chunk, Workload
from meshwright.planner.ranks import RankPlan


def tensor_traffic(workload: Workload, rank: RankPlan) -> Iterator[Transfer]:
    """Give what a rank exchanges over its tensor group."""
    if workload.layout.tensor_parallel == 1:
        return
    ranks = rank.groups["tensor"]
    for chunk in workload.chunks(rank.stage):
        yield from _activations(workload, chunk, ranks)
        if workload.layout.sequence_parallel:
            yield from _gradients(workload, chunk, ranks)


def _activations(workload: Workload, chunk: Chunk, ranks: tuple[int, ...]) -> Iterator[Transfer]:
    hidden_bytes = workload.layout.micro_batch * workload.local_sequence * workload.element_bytes
    token_bytes = hidden_bytes * workload.model.hidden
    gathers, scatters = _passes(workload, chunk)
    counts = {Kind.ALL_GATHER: gathers, Kind.REDUCE_SCATTER: scatters}
    if not workload.layout.sequence_parallel:
        counts = {Kind.ALL_REDUCE: scatters}
    for kind, each in counts.items():
        count = each * workload.micro_batches
        yield Transfer(kind=kind, ranks=ranks, count=count, payload_bytes=count * token_bytes)
    if chunk.last:
        logits = workload.micro_batches * hidden_bytes * workload.model.vocab
        yield Transfer(kind=Kind.ALL_GATHER, ranks=ranks, count=workload.micro_batches, payload_bytes=logits)


def _passes(workload: Workload, chunk: Chunk) -> tuple[int, int]:
    """Give how many times a micro-batch's tokens are gathered and scattered, or, without cut tokens, summed."""
    cut = workload.layout.sequence_parallel
    gathers, scatters = (int(chunk.first and cut) + int(chunk.last), int(chunk.first) + int(chunk.last))
    for index, recompute in workload.layers_of(chunk):
        mlp = workload.model.layers[index].mlp
        blocks = 1 if isinstance(mlp, Experts) and not mlp.shared_ffn_hidden else 2
        gathers, scatters = gathers + 2 * blocks, scatters + 2 * blocks
        if recompute is Recompute.FULL:
            gathers += blocks
            scatters += blocks if isinstance(mlp, Experts) else 1
    return gathers, scatters


def _gradients(workload: Workload, chunk: Chunk, ranks: tuple[int, ...]) -> Iterator[Transfer]:
    for unit in chunk_units(workload.model, chunk):
        count = reductions(workload, expert=unit.expert)
        summed_up = workload.layout.pipeline_parallel > 1 or count < workload.micro_batches
        element_bytes = FLOAT_BYTES if summed_up else workload.element_bytes
        for parameter in unit.parameters:
            if parameter.whole_on_tensor_ranks:
                payload = count * element_bytes
                for size in parameter.shape:
                    payload *= size
                yield Transfer(kind=Kind.ALL_REDUCE, ranks=ranks, count=count, payload_bytes=payload)
