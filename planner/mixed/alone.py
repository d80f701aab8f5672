"""Islands that train replicas of their own: every layout of one, and what it takes as a law of its micro-batches.

A layout that takes M micro-batches a replica is done after a + c M seconds: predict_time's figures on a line through
two of them, which they lie on but for pipelines of more stages than micro-batches, and what of the exchange of
gradients between islands it doesn't hide. The layouts are those of the uniform search's space, best first by its
bounds, until none is left that comes within a window of the fastest at the island's share of the batch. What a replica
takes isn't asked to divide anything: replicas may take one less, and a smaller one at the end.

Bounds hold without the exchange. Of E seconds of it a layout of M micro-batches that takes T seconds besides hides no
more than P T / M, the passes of one micro-batch through P stages, so that with a bound T' of T it takes
T' + max(E / L, E - P T' / M) or more, where M > P; else T' + E / L.
"""

from dataclasses import dataclass, replace

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.island_links import NOTHING, Exchange, exposed_exchange_s
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import SCHEDULES, FloatArray, IntArray, LayoutTable
from meshwright.costmodels.predict import layer_times, part_times, predict_memory, predict_time, stage_work
from meshwright.costmodels.stage_table import stage_table
from meshwright.costmodels.state import stage_parameters
from meshwright.planner.layout.bound import branch_bound_s, twig_bound_s
from meshwright.planner.layout.dominance import is_dominated, settings_of
from meshwright.planner.layout.least_recomputed import least_recomputed
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.objective import rounded
from meshwright.planner.layout.rules import Columns
from meshwright.planner.layout.space import Space, space_of, taken
from meshwright.planner.mixed.laws import Laws

TWIGS = 512
# A batch that every number of replicas times every micro-batch looked at divides.
RICH = 32
LARGEST_MICRO_BATCH = 32
HALVINGS = 3
INTERLEAVED = SCHEDULES.index(Schedule.INTERLEAVED)
# The law's second point, over the island's share of the batch.
FARTHER = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """The layouts of an island, with their laws, and their peak bytes as nvidia-smi counts them, [layouts]."""

    layouts: LayoutTable
    laws: Laws
    peak_bytes: FloatArray


def alone(
    job: Job, *, share: float, memory_limit_bytes: int, limits: Limits, window: float, exchange: Exchange = NOTHING
) -> Alone:
    """Find the layouts of an island that are within a window of the fastest.

    Args:
        job: on the island's devices, with the whole global batch.
        share: sequences at which layouts are compared.
        memory_limit_bytes: what a device may use.
        limits: what is asked of layouts.
        window: how much slower than the fastest a layout may be, relative.
        exchange: of gradients with other islands, once a step.

    """
    rich = replace(job, global_batch=RICH * job.cluster.devices)
    space = space_of(rich, limits)
    compared = replace(job, global_batch=max(round(share), 1))
    branches = _branches(space, job)
    found: list[LayoutTable] = []
    times: list[FloatArray] = []
    best, rest = np.inf, np.inf
    plain_s = branch_bound_s(compared, space.table(branches))
    bound_s = _with_exchange(compared, exchange, branches, plain_s)
    if not len(bound_s):
        return _laws(job, space.table(branches), share=share, rest_s=np.inf, fastest=0.0, exchange=exchange)
    fastest = _fastest(job, space.table(branches), compared.global_batch, plain_s)
    order = np.argsort(bound_s, kind="stable")
    reached, waiting_s = 0, np.zeros(0)
    waiting = space.twigs(taken(branches, order[:0])).rows
    while True:
        bar = best * (1.0 + window)
        fresh = order[reached : reached + TWIGS]
        fresh = fresh[bound_s[fresh] <= bar]
        reached += len(fresh)
        twigs = space.twigs(taken(branches, fresh)).rows
        if len(twigs["zero_stage"]):
            own_s = twig_bound_s(compared, space.table(twigs), memory_limit_bytes=memory_limit_bytes)
            own_s = _with_exchange(compared, exchange, twigs, own_s)
            waiting = {name: np.concatenate([column, twigs[name]]) for name, column in waiting.items()}
            waiting_s = np.concatenate([waiting_s, own_s])
        rank = np.argsort(waiting_s, kind="stable")
        rank = rank[waiting_s[rank] <= bar]
        rank = rank[np.isfinite(waiting_s[rank])]
        if not len(fresh) and not len(rank):
            break
        now, later = rank[:TWIGS], rank[TWIGS:]
        rest = min([rest, *waiting_s[np.isfinite(waiting_s) & (waiting_s > bar)]])
        if len(now):
            table, seconds = _fitting(space, compared, taken(waiting, now), memory_limit_bytes, limits, exchange)
            best = min([best, *seconds])
            kept = seconds <= best * (1.0 + window)
            rest = min([rest, *seconds[~kept]])
            found, times = [*found, table.take(np.flatnonzero(kept))], [*times, seconds[kept]]
        waiting, waiting_s = taken(waiting, later), waiting_s[later]
    rest = min([rest, *bound_s[order[reached:]]])
    if not found:
        return _laws(
            job, space.table(taken(branches, order[:0])), share=share, rest_s=rest, fastest=fastest, exchange=exchange
        )
    seconds = np.concatenate(times)
    kept = seconds <= best * (1.0 + window)
    rest = min([rest, *seconds[~kept]])
    return _laws(
        job,
        LayoutTable.joined(found).take(np.flatnonzero(kept)),
        share=share,
        rest_s=rest,
        fastest=fastest,
        exchange=exchange,
    )


def _branches(space: Space, job: Job) -> dict[str, IntArray]:
    """Give the branches that a job's batch fills, of which no other method of context parallelism is as good.

    Micro-batches are powers of two, of which the last may be smaller.
    """
    rows = space.branches.rows
    size = rows["micro_batch"]
    kept = (size <= LARGEST_MICRO_BATCH) & (size & (size - 1) == 0)
    kept &= size * rows["data_parallel"] <= job.global_batch
    rows = taken(rows, np.flatnonzero(kept))
    if not kept.any():
        return dict(rows)
    dominated = is_dominated(space.job, space.table(rows), settings_of(rows))
    return dict(taken(rows, np.flatnonzero(~dominated)))


def _with_exchange(job: Job, exchange: Exchange, rows: Columns, bound_s: FloatArray) -> FloatArray:
    """Give bounds with what of the exchange can't be hidden, [rows]."""
    sequences = rows["data_parallel"] * rows["micro_batch"]
    total_s = exchange.gradients_s + exchange.parameters_s
    share = rows["pipeline_parallel"] * sequences / job.global_batch
    hidden_s = np.where(share < 1.0, bound_s * share, total_s)
    shown_s = np.maximum(total_s / len(job.model.layers), total_s - hidden_s)
    return np.asarray(bound_s + exchange.fixed_s + shown_s)


def _exposed_s(job: Job, exchange: Exchange, layouts: LayoutTable) -> FloatArray:
    """Give what of the exchange layouts don't hide beside a micro-batch's way through all stages, [layouts]."""
    if exchange is NOTHING:
        return np.zeros(len(layouts))
    stages, kinds = stage_table(job.model, layouts), layer_times(job, layouts)
    work = stage_work(stages, part_times(job, layouts, stages, stage_parameters(job, layouts, stages), kinds))
    forward_s, backward_s = ((stages.multiplicity * way).sum(axis=1) for way in (work.forward_s, work.backward_s))
    return exposed_exchange_s(job, exchange, forward_s=forward_s, backward_s=backward_s)


def _fitting(
    space: Space, job: Job, twigs: Columns, limit: int, limits: Limits, exchange: Exchange
) -> tuple[LayoutTable, FloatArray]:
    """Give the leaves of some twigs that fit, and their seconds at the job's batch."""
    layouts = least_recomputed(job, space.table(space.leaves(twigs).rows), limit_bytes=limit, limits=limits)
    peak = rounded(predict_memory(job, layouts).nvidia_smi_bytes)
    layouts = layouts.take(np.flatnonzero(peak <= limit))
    if not len(layouts):
        return layouts, np.zeros(0)
    return layouts, predict_time(job, layouts).step_time_s + _exposed_s(job, exchange, layouts)


def _fastest(job: Job, branches: LayoutTable, batch: int, bound_s: FloatArray) -> float:
    """Give the sequences a second that no layout exceeds, of bounds that are lines in the batch."""
    twice_s = branch_bound_s(replace(job, global_batch=2 * batch), branches)
    return float(batch / (twice_s - bound_s).min())


def _laws(job: Job, layouts: LayoutTable, *, share: float, rest_s: float, fastest: float, exchange: Exchange) -> Alone:
    """Give the laws of some layouts, each through its times at two numbers of micro-batches."""
    usual = max(round(share), 1)
    near, far = (replace(job, global_batch=batch) for batch in (usual, max(round(share * FARTHER), usual + 1)))
    sequences = layouts.data_parallel * layouts.micro_batch
    if len(layouts):
        times = [predict_time(each, layouts).step_time_s for each in (near, far)]
        each_s = _each_s(near, far, layouts, times[1] - times[0])
        exposed_s = _exposed_s(near, exchange, layouts)
        fixed_s = times[0] - each_s * near.global_batch / sequences + exposed_s
        peak = predict_memory(near, layouts).nvidia_smi_bytes
    else:
        fixed_s, each_s, exposed_s, peak = (np.zeros(0) for _ in range(4))
    tails_s = _tails_s(near, far, layouts)
    interleaved = (layouts.schedule == INTERLEAVED) & (layouts.pipeline_parallel > 1)
    laws = Laws(
        sequences=sequences,
        quantum=np.where(interleaved, layouts.pipeline_parallel, 1),
        fixed_s=fixed_s,
        each_s=each_s,
        exposed_s=exposed_s,
        tails_s=tails_s,
        share=float(near.global_batch),
        rest_s=float(rest_s),
        fastest=fastest,
    )
    return Alone(layouts=layouts, laws=laws, peak_bytes=peak)


def _each_s(near: Job, far: Job, layouts: LayoutTable, more_s: FloatArray) -> FloatArray:
    """Give what one more micro-batch takes, [layouts], of what the farther batch takes more."""
    return np.asarray(more_s * layouts.data_parallel * layouts.micro_batch / (far.global_batch - near.global_batch))


def _tails_s(near: Job, far: Job, layouts: LayoutTable) -> FloatArray:
    """Give what a micro-batch of a half, a quarter, ... takes, [halvings, layouts]; infinite where there is none.

    That is where it isn't of whole sequences, and where a schedule wants micro-batches in rounds.
    """
    found = []
    interleaved = (layouts.schedule == INTERLEAVED) & (layouts.pipeline_parallel > 1)
    for halving in range(1, HALVINGS + 1):
        size = layouts.micro_batch >> halving
        rows = np.flatnonzero((size > 0) & ~interleaved)
        if not len(rows):
            break
        smaller = replace(layouts.take(rows), micro_batch=size[rows])
        times = [predict_time(each, smaller).step_time_s for each in (near, far)]
        seconds = np.full(len(layouts), np.inf)
        seconds[rows] = _each_s(near, far, smaller, times[1] - times[0])
        found.append(seconds)
    return np.array(found).reshape(len(found), len(layouts))
