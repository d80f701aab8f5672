"""What islands may be in a pipeline through several: their choices of degrees, with what a layer takes there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import (
    AXIS_ORDERS,
    RECOMPUTES,
    FloatArray,
    IntArray,
    Layout,
    LayoutTable,
    Recompute,
    numbered,
)
from meshwright.costmodels.pipeline_bubble import LayerSeconds
from meshwright.costmodels.pipeline_messages import message_s as message_inside_s
from meshwright.costmodels.predict import layer_times
from meshwright.costmodels.state import layer_on_rank
from meshwright.costmodels.synchronisation import optimizer_s
from meshwright.costmodels.vocabulary import embedding_s, head_s
from meshwright.planner.layout.dominance import is_dominated, settings_of
from meshwright.planner.layout.limited_fields import RECOMPUTED, SPLIT
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.needs import layer_needs, room_bytes
from meshwright.planner.layout.space import space_of, taken
from meshwright.planner.mixed.alone import RICH

LARGEST_MICRO_BATCH = 8
LARGEST_CONTEXT = 8
# Choices of expert and sequence parallelism to look at, of each island's other degrees: those of which no
# quicker one needs less memory, the quickest of them.
ALIKE = 4
BY_ROW = (
    "layer_s",
    "shortest_s",
    "embedding_s",
    "head_s",
    "message_s",
    "again_s",
    "room_bytes",
    "state_bytes",
    "kept_bytes",
    "least_bytes",
    "optimizer_s",
)
SHARED = ("data_parallel", "context_parallel", "context_method", "micro_batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An island (by number) and its choices of degrees, [rows], or its side of a chain's configurations.

    layer_s, shortest_s, embedding_s, head_s: seconds both ways of a layer of the kind that takes most in all, of which
    the model has `counted`, of its shortest layer, of the embedding and of the head, for one micro-batch; again_s: of
    computing a layer again; optimizer_s: of its states' update. message_s: a message between its stages. room_bytes:
    what a device has for layers; state_bytes, kept_bytes, least_bytes: a layer's states, and what it keeps of a
    micro-batch, wholly or computed again.
    """

    island: int
    job: Job
    limits: Limits
    layouts: LayoutTable
    counted: int
    layer_s: FloatArray
    shortest_s: FloatArray
    embedding_s: FloatArray
    head_s: FloatArray
    message_s: FloatArray
    again_s: FloatArray
    room_bytes: FloatArray
    state_bytes: FloatArray
    kept_bytes: FloatArray
    least_bytes: FloatArray
    optimizer_s: FloatArray

    @property
    def stages(self) -> IntArray:
        """Stages of the island, [rows]."""
        return self.layouts.pipeline_parallel

    def take(self, rows: IntArray) -> Self:
        """Give some rows."""
        values = {name: getattr(self, name)[rows] for name in BY_ROW}
        return replace(self, layouts=self.layouts.take(rows), **values)


def members_of(jobs: Sequence[Job], limits: Limits, memory_limits_bytes: Sequence[int]) -> tuple[Member, ...]:
    """Give the choices of degrees of each island that a chain may pass, in order, () where one has none."""
    tables = [space_of(_rich(job), limits).table(_rows(job, limits)) for job in jobs]
    if not all(map(len, tables)):
        return ()
    kind = _longest_kind(jobs[0], tables[0])
    found = []
    for island, (job, table, limit) in enumerate(zip(jobs, tables, memory_limits_bytes, strict=True)):
        member = _member(island, job, table, kind, limit, limits)
        fits = np.flatnonzero(member.state_bytes + member.least_bytes <= member.room_bytes)
        found.append(_frontier(member.take(np.intersect1d(fits, _as_asked(job, table, limits)))))
    return tuple(found)


def _as_asked(job: Job, table: LayoutTable, limits: Limits) -> IntArray:
    """Give the rows that keep limits on what pipelines across links don't decide: their schedule and their shards.

    None does where layers are asked for chunk by chunk. What is computed again is decided stage by stage.
    """
    if limits.sizes(len(job.model.layers)):
        return np.zeros(0, dtype=np.int64)
    for field in (SPLIT, RECOMPUTED, "recompute", "pipeline_parallel"):
        limits = limits.without(field)
    if not limits.fields():
        return np.arange(len(table))
    layers = len(job.model.layers)
    kept = [
        number
        for number in range(len(table))
        if not limits.broken_by(replace(chain_layout(table.row(number)), pipeline_parallel=2), layers=layers)
    ]
    return np.array(kept, dtype=np.int64)


def chain_layout(layout: Layout) -> Layout:
    """Give the layout of an island's stages: 1F1B, the optimizer sharded over the replicas, recomputation as needed."""
    ranks = layout.data_parallel * layout.context_parallel
    return replace(
        layout,
        schedule=Schedule.ONE_F_ONE_B,
        zero_stage=1 if ranks > 1 else 0,
        zero_shard=ranks,
        gradient_shard=None,
        parameter_shard=None,
        backward_shard=None,
        recompute=Recompute.FULL,
        recompute_layers=None,
    )


def _longest_kind(job: Job, layouts: LayoutTable) -> int:
    """Give the kind of layers that take most of all kinds, over some layouts."""
    kinds = [LayerSeconds.of(time) for time in layer_times(job, layouts)]
    counts = [job.model.kind_of_layer.count(kind) for kind in range(len(kinds))]
    total_s = [
        count * float(np.sum(kind.forward_s + kind.backward_s)) for count, kind in zip(counts, kinds, strict=True)
    ]
    return total_s.index(max(total_s))


def _rich(job: Job) -> Job:
    return replace(job, global_batch=RICH * job.cluster.devices)


def _rows(job: Job, limits: Limits) -> dict[str, IntArray]:
    """Give the branches of an island that a chain may have."""
    space = space_of(_rich(job), limits)
    rows = space.branches.rows
    size = rows["micro_batch"]
    kept = (size <= LARGEST_MICRO_BATCH) & (size & (size - 1) == 0)
    kept &= size * rows["data_parallel"] <= job.global_batch
    kept &= (rows["context_parallel"] <= LARGEST_CONTEXT) & (rows["tensor_parallel"] <= job.cluster.domain_devices)
    kept &= rows["axis_order"] == AXIS_ORDERS.index(AxisOrder.PIPELINE_OUTERMOST)
    rows = taken(rows, np.flatnonzero(kept))
    if not kept.any():
        return dict(rows)
    dominated = is_dominated(job, space.table(rows), settings_of(rows))
    return dict(taken(rows, np.flatnonzero(~dominated)))


def _frontier(member: Member) -> Member:
    """Keep, of rows that differ in expert and sequence parallelism alone, those that no quicker one beats in memory.

    Memory is that of a layer's states and of what it keeps of a micro-batch; of very many the quickest are kept.
    """
    layouts = member.layouts
    group = np.zeros(len(layouts), dtype=np.int64)
    for name in (*SHARED, "tensor_parallel", "pipeline_parallel"):
        _, group = numbered(group * (getattr(layouts, name).max(initial=0) + 1) + getattr(layouts, name))
    held = member.state_bytes + member.kept_bytes
    kept: list[int] = []
    least, number, last = np.inf, 0, -1
    for row in np.lexsort([held, member.layer_s, group]).tolist():
        if group[row] != last:
            least, number, last = np.inf, 0, int(group[row])
        if held[row] < least and number < ALIKE:
            kept.append(row)
            least, number = float(held[row]), number + 1
    return member.take(np.array(sorted(kept), dtype=np.int64))


def _member(island: int, job: Job, layouts: LayoutTable, kind: int, limit: int, limits: Limits) -> Member:
    kinds = [LayerSeconds.of(time) for time in layer_times(job, layouts)]
    each_s = [np.broadcast_to(own.forward_s + own.backward_s, len(layouts)) for own in kinds]
    sharded = _sharded(layouts)
    need = list(layer_needs(job, sharded))[kind]
    again = RECOMPUTES.index(Recompute.FULL)
    return Member(
        island=island,
        job=job,
        limits=limits,
        layouts=layouts,
        counted=job.model.kind_of_layer.count(kind),
        layer_s=each_s[kind],
        shortest_s=np.min(each_s, axis=0),
        embedding_s=np.add(*embedding_s(job, layouts)),
        head_s=np.add(*head_s(job, layouts)),
        message_s=message_inside_s(job, layouts),
        again_s=need.again_s[again],
        room_bytes=room_bytes(job, sharded, limit),
        state_bytes=need.state_bytes,
        kept_bytes=need.kept_bytes[RECOMPUTES.index(Recompute.NONE)],
        least_bytes=need.kept_bytes[again],
        optimizer_s=optimizer_s(job, sharded, layer_on_rank(job, job.model.layer_kinds[kind], sharded))[:, 0],
    )


def _sharded(layouts: LayoutTable) -> LayoutTable:
    """Give layouts as a chain runs them, the optimizer sharded over the replicas, with an end elsewhere."""
    ranks = layouts.data_parallel * layouts.context_parallel
    return replace(
        layouts,
        zero_stage=np.where(ranks > 1, 1, 0),
        zero_shard=ranks,
        pipeline_parallel=np.maximum(layouts.pipeline_parallel, 2),
    )
