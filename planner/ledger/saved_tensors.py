"""What autograd keeps of each module of the launcher's model for the backward pass of one micro-batch, on one rank.

With t the tokens that a rank has between the matrices, T those that its tensor group has together, both of a
micro-batch, S those of a whole sequence, s those of it that a context rank has, h the hidden size, f a width, a and k
query and key heads of d channels, V words, c of E experts chosen, r and R rows that a rank routes and that its experts
get, e bytes an element, widths and heads divided by the degrees that cut them, PyTorch 2.13's operators on processors
keep these bytes:

    norm            input, normed input                  4 t h each      squares are taken in fp32
                    factor                               4 t
    first matrices  their common input                   e T h           gradients of weights; gathered where cut
    rotary          cosines and sines                    4 e s d / 2     two of queries and two of keys
    attention       queries; keys, values                e T a d; e T k d each
                    mask, where keys are gathered        e s S           the causal kernel asks for as many queries
                    what it gives; its log-sums          e T a d; 4 T a  the kernel's own backward pass
    output          its input, unless that's the above   e T a d         a copy behind Ulysses' exchange, or recomputed
    MLP             gate's and up's outputs              e T f each      the product's and the SiLU's gradients
                    SiLU of the gate, product            e T f each      the product's gradient, the last matrix's input
    router          its input; its weights               e t h; e t E    not again where the MLP's input is the same
                    choices                              8 c t           once for all sequences, which have the same
    rows            where from, where to                 8 r each
                    mapped, weighted and sums' weights   e r h twice; e r
                    by expert: where to, and mapped      8 R; e R h      where expert ranks exchange rows
    experts         input; four as in an MLP             e R h; 4 e R f
    loss            logarithms of shares; total weight   4 T V; 4        logits are gathered, and are fp32 from there on

Keys and values have C times the tokens where C context ranks gather them; Ulysses has C times the tokens and a C-th of
the heads, of attention alone. A layer that is computed again keeps its input, e t h, alone; a core that is, no more
than queries, keys and values. Gathered parameters aren't counted, nor what a backward pass makes again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from meshwright.catalog.context_method import ContextMethod
from meshwright.costmodels.layout import Recompute
from meshwright.costmodels.transformer import Attention, Experts
from meshwright.planner.ledger.expert_traffic import rows_out_and_in
from meshwright.planner.ledger.workload import FLOAT_BYTES, Chunk, Workload
from meshwright.planner.ranks import RankPlan

INDEX_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSaved:
    """What a forward pass of a micro-batch through a chunk keeps.

    inner_bytes: until its weights have their gradients. outer_bytes: of what stands behind its last weights, until its
    inputs have theirs.
    """

    inner_bytes: int
    outer_bytes: int


def chunk_saved(workload: Workload, rank: RankPlan, chunk: Chunk) -> ChunkSaved:
    """Give what one micro-batch keeps of a chunk, words and targets apart."""
    total = outer = 0
    for index, recompute in workload.layers_of(chunk):
        total += _layer_bytes(workload, rank, index, recompute=recompute)
        mlp = workload.model.layers[index].mlp
        outer = 0
        if isinstance(mlp, Experts) and recompute is not Recompute.FULL:
            outer = sum(_sums(workload, mlp, rank))
    if chunk.last:
        outer = FLOAT_BYTES * (_tokens(workload) * workload.model.vocab + 1)
        total += _norm_bytes(workload) + _input_bytes(workload) + outer
    return ChunkSaved(inner_bytes=total - outer, outer_bytes=outer)


def batch_bytes(workload: Workload) -> int:
    """Give the bytes of a rank's words of all micro-batches, or of its targets."""
    return INDEX_BYTES * workload.micro_batches * _tokens(workload)


def _layer_bytes(workload: Workload, rank: RankPlan, index: int, *, recompute: Recompute) -> int:
    if recompute is Recompute.FULL:
        return workload.element_bytes * workload.local_tokens * workload.model.hidden
    layer = workload.model.layers[index]
    kept = [2 * _norm_bytes(workload), _input_bytes(workload)]
    kept += _attention(workload, layer.attention, recomputed=recompute is Recompute.SELECTIVE)
    if isinstance(layer.mlp, Experts):
        kept += _mixture(workload, layer.mlp, rank)
    else:
        kept += [_input_bytes(workload), _mlp_bytes(workload, layer.mlp.ffn_hidden)]
    return sum(kept)


def _norm_bytes(workload: Workload) -> int:
    return FLOAT_BYTES * workload.local_tokens * (2 * workload.model.hidden + 1)


def _input_bytes(workload: Workload) -> int:
    return workload.element_bytes * _tokens(workload) * workload.model.hidden


def _mlp_bytes(workload: Workload, width: int) -> int:
    return 4 * workload.element_bytes * _tokens(workload) * width // workload.layout.tensor_parallel


def _attention(workload: Workload, attention: Attention, *, recomputed: bool) -> Iterator[int]:
    layout, element = workload.layout, workload.element_bytes
    heads, kv_heads = (count // layout.tensor_parallel for count in (attention.heads, attention.kv_heads))
    queries = element * _tokens(workload) * heads * attention.head_dim
    keys = element * _tokens(workload) * kv_heads * attention.head_dim
    context = layout.context_parallel
    gathers = context > 1 and layout.context_method is ContextMethod.ALL_GATHER
    yield 2 * element * workload.local_sequence * attention.head_dim
    yield queries + 2 * keys * (context if gathers else 1)
    yield queries
    if recomputed:
        return
    yield FLOAT_BYTES * _tokens(workload) * heads
    if gathers:
        yield element * workload.local_sequence * workload.sequence_length
    elif context > 1:
        yield queries


def _mixture(workload: Workload, experts: Experts, rank: RankPlan) -> Iterator[int]:
    element, hidden = workload.element_bytes, workload.model.hidden
    own, (rows, arrived) = workload.local_tokens, rows_out_and_in(workload, experts, rank)
    yield element * own * hidden
    yield INDEX_BYTES * rows
    yield element * arrived * (hidden + 4 * experts.ffn_hidden)
    if workload.layout.expert_parallel > 1:
        yield INDEX_BYTES * arrived
    yield from _sums(workload, experts, rank)
    if experts.shared_ffn_hidden:
        yield _mlp_bytes(workload, experts.shared_ffn_hidden)
        if own < _tokens(workload):
            yield _input_bytes(workload)


def _sums(workload: Workload, experts: Experts, rank: RankPlan) -> Iterator[int]:
    """Give what stands behind the matrices of router and experts."""
    layout, element, hidden = workload.layout, workload.element_bytes, workload.model.hidden
    own, (rows, arrived) = workload.local_tokens, rows_out_and_in(workload, experts, rank)
    yield element * own * experts.experts
    yield INDEX_BYTES * experts.top_k * own // layout.micro_batch
    yield INDEX_BYTES * rows + element * rows * (2 * hidden + 1)
    if layout.expert_parallel > 1:
        yield element * arrived * hidden


def _tokens(workload: Workload) -> int:
    return workload.layout.micro_batch * workload.local_sequence
