"""Costs of groups of each degree, from the cost model.

A micro-batch of each degree is predicted at three lengths, and what it takes is told apart by how it grows:

    attention    with the square of a length: through three points of each kind of layer; where queries look back only
                 so far, in proportion to the pairs that they see
    the rest     with the tokens: a line through two points

Communication beside attention is predicted twice, with no attention to hide behind and with as much as it wants: the
two pieces of max(messages, attention + slowdown). Gathers and reductions of each micro-batch (ZeRO-2 and ZeRO-3) are a
piece of their own beside all compute, and so is the host where it is slower than the device.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np

from meshwright.catalog.errors import Infeasible, InputError
from meshwright.costmodels.accumulation import accumulation_s
from meshwright.costmodels.activations import layer_activations
from meshwright.costmodels.attention import attended_pairs, core_time_s
from meshwright.costmodels.collectives import Group, all_gather_s
from meshwright.costmodels.context_messages import context_communication_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, layer_time
from meshwright.costmodels.layout import FloatArray, IntArray, Layout, LayoutTable
from meshwright.costmodels.matmul import wide_precision
from meshwright.costmodels.packing import packing_s
from meshwright.costmodels.predict import predict_memory
from meshwright.costmodels.stage_table import stage_table
from meshwright.costmodels.state import StageParameters, stage_parameters
from meshwright.costmodels.state_messages import state_messages
from meshwright.costmodels.transformer import Layer
from meshwright.costmodels.vocabulary import embedding_s, head_s
from meshwright.planner.sequences.group_costs import AttentionWork, GroupCosts
from meshwright.planner.sequences.method import Method, context_method, is_legal, ulysses_ranks

# Tokens of a rank at which micro-batches are predicted: long enough for products to be at their rate.
PROBED_TOKENS = 8192
# Attention that any message hides behind.
ENDLESS_S = 1e9
# A value of a state that is gathered.
STATE_BYTES = 2
# Micro-batches of a step, for what a further one adds.
MANY = 10**6

# a, b and c of seconds that are a W + b L + c.
Line = FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    """One degree's layout, and the job at one and two times PROBED_TOKENS a rank."""

    job: Job
    degree: int
    table: LayoutTable

    def at(self, tokens_a_rank: int) -> Job:
        return replace(self.job, sequence_length=tokens_a_rank * self.degree)


def group_costs(
    job: Job, layout: Layout, *, degrees: IntArray, method: Method, memory_bytes: float, offload: bool = False
) -> GroupCosts:
    """Give the costs of groups of the given degrees that the method allows.

    layout: its tensor, expert and ZeRO degrees count; context and data parallelism are what groups decide.
    memory_bytes: what may be used of a device. offload: whether activations beyond it may go to the host's memory.

    Raises Infeasible where a device doesn't hold the model's states, InputError where the layout can't be split so.
    """
    _require_plain(layout, job)
    ranks = layout.world_size // layout.tensor_parallel
    node_ranks = max(job.cluster.devices_per_node // layout.tensor_parallel, 1)
    attention = job.model.layer_kinds[0].attention
    heads, kv_heads = attention.heads // layout.tensor_parallel, max(attention.kv_heads // layout.tensor_parallel, 1)
    legal = [int(d) for d in degrees if is_legal(method, int(d), heads=heads, kv_heads=kv_heads)]
    probes = [
        _Probe(job=job, degree=degree, table=_table(layout, ranks, degree, method, heads, node_ranks))
        for degree in legal
    ]
    whole = tuple(_attention_work(probes[0], layer, count) for layer, count in _kinds(job))
    room = [_room(probe, memory_bytes, offload=offload) for probe in probes]
    pieces = [_pieces(probe, whole, linear=method is Method.LINEAR_ATTENTION) for probe in probes]
    pieces = [rows + own.pieces(probe.degree) for rows, own, probe in zip(pieces, room, probes, strict=True)]
    longest = max(map(len, pieces))
    padded = np.array([rows + [rows[0]] * (longest - len(rows)) for rows in pieces])
    return GroupCosts(
        ranks=ranks,
        node_ranks=node_ranks,
        devices_a_rank=layout.tensor_parallel,
        degrees=np.array(legal),
        pieces=padded,
        most_tokens=np.array([own.most_tokens * probe.degree for own, probe in zip(room, probes, strict=True)]),
        attention=() if method is Method.LINEAR_ATTENTION else whole,
        free_allowed=layout.zero_stage < 2,
    )


def _require_plain(layout: Layout, job: Job) -> None:
    if layout.pipeline_parallel > 1:
        raise InputError("groups are of one pipeline stage", path="layout.pipeline_parallel", hint="give 1")
    if job.cluster.devices != layout.world_size:
        raise InputError(f"is of {layout.world_size} devices, and the cluster has {job.cluster.devices}", path="layout")
    for kind in job.model.layer_kinds:
        if kind.attention.heads % layout.tensor_parallel:
            raise InputError(
                f"{kind.attention.heads} heads can't be shared by {layout.tensor_parallel} devices",
                path="tensor_parallel",
            )


def _table(layout: Layout, ranks: int, degree: int, method: Method, heads: int, node_ranks: int) -> LayoutTable:
    over_heads = ulysses_ranks(degree, heads=heads, node_ranks=node_ranks)
    context, ulysses = context_method(method, over_heads, degree)
    return LayoutTable.of(
        [
            replace(
                layout,
                context_parallel=degree,
                context_method=context,
                ulysses_parallel=ulysses,
                data_parallel=max(ranks // degree, 1),
                micro_batch=1,
            )
        ]
    )


def _kinds(job: Job) -> Iterator[tuple[Layer, int]]:
    """Give each kind of layer, with how many the model has of it; modules of MTP are like the last layer."""
    held = (*job.model.kind_of_layer, *job.model.kind_of_layer[-1:] * job.model.mtp_layers)
    for number, kind in enumerate(job.model.layer_kinds):
        yield kind, held.count(number)


def _line(seconds: Callable[[Job], FloatArray], probe: _Probe) -> Line:
    """Fit seconds that grow with the tokens alone."""
    near, far = (float(np.ravel(seconds(probe.at(times * PROBED_TOKENS)))[0]) for times in (1, 2))
    slope = max(far - near, 0.0) / (PROBED_TOKENS * probe.degree)
    return np.array([0.0, slope, max(near - slope * PROBED_TOKENS * probe.degree, 0.0)])


def _core(probe: _Probe, layer: Layer) -> tuple[Line, Line]:
    """Fit the attention core forward and backward; `a` is in seconds a pair."""
    attention = layer.attention
    jobs = [probe.at(times * PROBED_TOKENS) for times in (1, 2, 4)]
    points = np.array([[float(pass_[0]) for pass_ in core_time_s(job, attention, probe.table)] for job in jobs])
    if attention.window is not None or attention.chunk is not None:
        pairs = attended_pairs(attention, jobs[-1].sequence_length)
        forward_s, backward_s = points[-1] / pairs
        return np.array([forward_s, 0.0, 0.0]), np.array([backward_s, 0.0, 0.0])
    lengths = np.array([job.sequence_length for job in jobs], dtype=float)
    fitted = np.linalg.solve(np.stack([lengths**2 / 2.0, lengths, np.ones(3)], axis=1), points)
    forward, backward = np.maximum(fitted, 0.0).T
    return forward, backward


def _recomputed_share(probe: _Probe, layer: Layer) -> float:
    """Give how often the attention core runs forward beyond once."""
    time = layer_time(probe.at(PROBED_TOKENS), layer, probe.table)
    return float((time.recompute[Cause.ATTENTION] / time.forward[Cause.ATTENTION]).max())


def _attention_work(probe: _Probe, layer: Layer, count: int) -> AttentionWork:
    """Give the attention of all layers of a kind, of the least degree's fit times its ranks."""
    forward, backward = _core(probe, layer)
    again = 1.0 + _recomputed_share(probe, layer)
    pair_s = float(again * forward[0] + backward[0]) * probe.degree * count
    return AttentionWork(pair_s=pair_s, window=layer.attention.window, chunk=layer.attention.chunk)


def _pieces(probe: _Probe, whole: tuple[AttentionWork, ...], *, linear: bool) -> list[list[float]]:
    """Give the pieces of a degree that can count, the one without waits first."""
    beside, passes = np.zeros(3), [[np.zeros(3), np.zeros(3)], [np.zeros(3), np.zeros(3)]]
    for layer, count in _kinds(probe.job):
        beside = beside + count * _line(partial(_outside_attention_s, layer=layer, probe=probe), probe)
        again = 1.0 + _recomputed_share(probe, layer)
        own = _linear_passes(probe, layer) if linear else _passes(probe, layer)
        for way, times in ((0, again), (1, 1.0)):
            for bound in (0, 1):
                passes[way][bound] = passes[way][bound] + count * times * own[way][bound]
    # W is what attention takes on one rank: its share of a group is the same for all kinds of layers.
    total = passes[0][0][0] + passes[1][0][0]
    scale = 1.0 / (probe.degree * total) if whole and total else 0.0
    compute = beside + _line(lambda job: _ends_s(job, probe), probe) + _constant(_accumulated_s(probe))
    rows = [compute + forward + backward for forward, backward in product(*passes)]
    gathered = _gathers(probe)
    rows = [row + _constant(gathered.slowdown_s) for row in rows] + [
        gathered.share * rows[0] + _constant(gathered.alone_s),
        _constant(_launched_s(probe)),
    ]
    return _that_count([[float(row[0] * scale), float(row[1]), float(row[2])] for row in rows])


def _constant(seconds: float) -> Line:
    return np.array([0.0, 0.0, seconds])


def _passes(probe: _Probe, layer: Layer) -> list[list[Line]]:
    """Give for forward and backward what attention and its messages take where attention counts, and where messages."""

    def message_s(job: Job, *, way: int, core_s: float) -> FloatArray:
        both = (np.full(1, core_s), np.full(1, core_s))
        return context_communication_s(job, layer.attention, probe.table, both)[way]

    core = _core(probe, layer)
    return [
        [
            core[way] + _line(partial(message_s, way=way, core_s=ENDLESS_S), probe),
            _line(partial(message_s, way=way, core_s=0.0), probe),
        ]
        for way in (0, 1)
    ]


def _linear_passes(probe: _Probe, layer: Layer) -> list[list[Line]]:
    """Give the same of linear attention: its states are updated and read by each token, and gathered over the group.

    A head's state has as many values as a key is wide times a value: 2 operations of each to update, 2 to read; twice
    that backward. All ranks' states are gathered (LASP-2, arXiv 2502.07563, section 3.2).
    """
    attention, device = layer.attention, probe.job.cluster.device
    tensor = int(probe.table.tensor_parallel[0])
    state = attention.heads // tensor * attention.head_dim * attention.value_head_dim
    token_s = 4.0 * state / (device.peak(wide_precision(probe.job.precision)) * device.calibration.attention_forward)
    group = Group(size=np.array([probe.degree]), stride=np.array([tensor]))
    gather_s = float(all_gather_s(probe.job.cluster, group, np.array([float(STATE_BYTES * state * probe.degree)]))[0])
    forward = np.array([0.0, token_s / probe.degree, gather_s])
    backward = np.array([0.0, 2.0 * token_s / probe.degree, gather_s])
    return [[forward, forward], [backward, backward]]


def _outside_attention_s(job: Job, *, layer: Layer, probe: _Probe) -> FloatArray:
    time = layer_time(job, layer, probe.table)
    apart = (Cause.ATTENTION, Cause.CONTEXT, Cause.HOST)
    return np.asarray(
        sum(
            seconds
            for causes in (time.forward, time.backward, time.recompute)
            for cause, seconds in causes.items()
            if cause not in apart
        )
    )


def _launched_s(probe: _Probe) -> float:
    job = probe.at(PROBED_TOKENS)
    return sum(count * float(layer_time(job, layer, probe.table).launch_s.max()) for layer, count in _kinds(probe.job))


def _ends_s(job: Job, probe: _Probe) -> FloatArray:
    embedding, head = embedding_s(job, probe.table), head_s(job, probe.table)
    return embedding[0] + embedding[1] + head[0] + head[1]


def _accumulated_s(probe: _Probe) -> float:
    stages = stage_table(probe.job.model, probe.table)
    parameters = stage_parameters(probe.job, probe.table, stages)
    return float(accumulation_s(probe.job, probe.table, parameters, total=np.array([float(MANY)])).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gathers:
    """What a micro-batch exchanges of parameters and gradients.

    slowdown_s: by how much it slows compute that it runs beside. alone_s, share: what it takes where it is the longer,
    with the share of compute that it can't run beside.
    """

    slowdown_s: float
    alone_s: float
    share: float


def _gathers(probe: _Probe) -> _Gathers:
    job, stages = probe.job, stage_table(probe.job.model, probe.table)
    parameters = stage_parameters(job, probe.table, stages)
    layers = np.maximum(stages.layers.sum(axis=2), 1)
    messages = state_messages(job, probe.table, parameters, layers)
    buckets = float(messages.buckets.max())
    slowed = 1.0 - 1.0 / job.cluster.device.calibration.contention
    slowdown_s = alone_s = 0.0
    ways = (
        (messages.forward_gather_s, job.stack.overlap_parameters),
        (messages.backward_gather_s + messages.reduction_s, job.stack.overlap_gradients),
    )
    for seconds, overlapped in ways:
        each_s = float(seconds.max())
        tail_s = each_s / buckets if overlapped else each_s
        slowdown_s += tail_s + slowed * (each_s - tail_s)
        alone_s += each_s
    copies_s = _copied_s(probe, parameters)
    slowdown_s, alone_s = slowdown_s + copies_s, alone_s + copies_s
    return _Gathers(slowdown_s=slowdown_s, alone_s=alone_s, share=1.0 / buckets)


def _copied_s(probe: _Probe, parameters: StageParameters) -> float:
    """Give what each further micro-batch copies into and out of the buffers of what it exchanges."""
    once_s, twice_s = (
        sum(packing_s(probe.job, probe.table, parameters, total=np.array([count]))) for count in (1.0, 2.0)
    )
    return float(np.max(twice_s - once_s))


def _that_count(rows: list[list[float]]) -> list[list[float]]:
    """Give the first row, and those of the others that another isn't always above."""
    kept = [rows[0]]
    for row in rows[1:]:
        if not any(all(mine <= other for mine, other in zip(row, above, strict=True)) for above in kept):
            kept.append(row)
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """Tokens that a rank's memory holds, and with a part of them in the host's.

    copied_s: seconds of copying a token's activations to the host and back.
    """

    tokens: int
    most_tokens: int
    copied_s: float

    def pieces(self, degree: int) -> list[list[float]]:
        """Give the piece of copies, beside all compute: of the tokens beyond what device memory holds, no others."""
        if self.most_tokens == self.tokens:
            return []
        return [[0.0, self.copied_s / degree, -self.copied_s * self.tokens]]


def _room(probe: _Probe, memory_bytes: float, *, offload: bool) -> _Room:
    """Give how many tokens a rank's memory holds: bytes grow with them in a line.

    What can go to the host is what layers keep, of all but the one at work, and no more of it than memory asks for (as
    in ByteScale, arXiv 2502.21231); it goes there and comes back over the host's link, beside compute.
    """
    batch = int(probe.table.data_parallel[0])
    jobs = [replace(probe.at(times * PROBED_TOKENS), global_batch=batch) for times in (1, 2)]
    near, far = (float(predict_memory(job, probe.table).nvidia_smi_bytes[0]) for job in jobs)
    each = (far - near) / PROBED_TOKENS
    room = memory_bytes - (near - each * PROBED_TOKENS)
    if room < each:
        raise Infeasible(
            f"a device offers {memory_bytes / 2**30:.1f} GiB, and {(memory_bytes - room) / 2**30:.1f} GiB are taken "
            "before the first token",
            hint="shard more (--zero-stage 3), a larger --tensor-parallel, or more devices",
        )
    tokens = int(room / each)
    if not offload:
        return _Room(tokens=tokens, most_tokens=tokens, copied_s=0.0)
    kept = sum(
        count * float(layer_activations(jobs[0], layer, probe.table).kept[0]) for layer, count in _kinds(probe.job)
    )
    layers = sum(count for _, count in _kinds(probe.job))
    moved = kept / PROBED_TOKENS * (1.0 - 1.0 / layers)
    left = max(each - moved, each / layers)
    # L tokens of which `tokens` fit: each (L - tokens) bytes have to go, whatever layer they are of.
    copied_s = 2.0 * each / probe.job.cluster.device.host_bandwidth("link_bandwidth")
    return _Room(tokens=tokens, most_tokens=int(room / left), copied_s=copied_s)
