"""Every way to train on two small islands, one after another: what the search of mixed clusters is held against."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.costmodels.island_links import (
    NOTHING,
    Across,
    Exchange,
    exchange_of,
    exposed_exchange_s,
    joined_edges,
)
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import SCHEDULES, FloatArray, LayoutTable
from meshwright.costmodels.predict import layer_times, part_times, predict_memory, predict_time, stage_work
from meshwright.costmodels.stage_table import stage_table
from meshwright.costmodels.state import stage_parameters
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.space import space_of
from meshwright.planner.mixed.chain_configs import configurations
from meshwright.planner.mixed.chain_cut import Known, Stages, stages_of, steps_of
from meshwright.planner.mixed.chain_members import members_of
from meshwright.planner.mixed.question import Mixed

LARGE = 1e9
INTERLEAVED = SCHEDULES.index(Schedule.INTERLEAVED)


def layouts_of(job: Job, limits: Limits, limit: int) -> LayoutTable:
    """Every layout of an island that fits, whatever the batch; micro-batches are powers of two."""
    space = space_of(replace(job, global_batch=32 * job.cluster.devices), limits)
    table = space.table(space.leaves(space.twigs(space.branches.rows).rows).rows)
    size = table.micro_batch
    kept = (size <= 32) & (size & (size - 1) == 0) & (size * table.data_parallel <= job.global_batch)
    table = table.take(np.flatnonzero(kept & (table.recompute_layers == 0)))
    return table.take(np.flatnonzero(predict_memory(job, table).nvidia_smi_bytes <= limit))


def times_by_share(job: Job, limits: Limits, limit: int, exchange: Exchange, batch: int) -> list[float]:
    """The least seconds of an island for each number of sequences up to the batch, the exchange included."""
    best = [0.0] + [LARGE] * batch
    table = layouts_of(job, limits, limit)
    replicas = table.data_parallel
    for size, count in {(int(b), int(d)) for b, d in zip(table.micro_batch, replicas, strict=True)}:
        rows = table.take(np.flatnonzero((table.micro_batch == size) & (replicas == count)))
        exposed_s = _exposed_s(job, exchange, rows)
        rounds = (rows.schedule == INTERLEAVED) & (rows.pipeline_parallel > 1)
        for number in range(1, -(-batch // (count * size)) + 1):
            full_s = _times_s(job, rows, number) + exposed_s
            legal = ~rounds | (number % rows.pipeline_parallel == 0)
            _improve(best, size * number * count, np.where(legal, full_s, LARGE))
            for halving in (1, 2, 3):
                if size >> halving:
                    smaller = replace(rows, micro_batch=rows.micro_batch >> halving)
                    more_s = _times_s(job, smaller, number + 1) - _times_s(job, smaller, number)
                    done = (size * number + (size >> halving)) * count
                    _improve(best, done, np.where(rounds, LARGE, full_s + more_s))
    return best


def _improve(best: list[float], done: int, seconds: FloatArray) -> None:
    for share in range(1, min(done, len(best) - 1) + 1):
        best[share] = min(best[share], float(seconds.min()))


def _times_s(job: Job, rows: LayoutTable, number: int) -> FloatArray:
    batch = number * int(rows.data_parallel[0]) * int(rows.micro_batch[0])
    return predict_time(replace(job, global_batch=batch), rows).step_time_s


def _exposed_s(job: Job, exchange: Exchange, table: LayoutTable) -> FloatArray:
    if exchange is NOTHING:
        return np.zeros(len(table))
    stages, kinds = stage_table(job.model, table), layer_times(job, table)
    work = stage_work(stages, part_times(job, table, stages, stage_parameters(job, table, stages), kinds))
    ways = [(stages.multiplicity * way).sum(axis=1) for way in (work.forward_s, work.backward_s)]
    return exposed_exchange_s(job, exchange, forward_s=ways[0], backward_s=ways[1])


def best_apart_s(asked: Mixed) -> float:
    """The least step where two islands train replicas of their own, or one trains alone."""
    batch, links = asked.batch, asked.islands.link_of
    edges = joined_edges([(0,), (1,)], links)
    exchanges = [exchange_of(asked.jobs[0], 2, edges, across) for across in Across]
    exchange = min(exchanges, key=lambda each: each.gradients_s + each.parameters_s)
    parties = 2 if exchange.parameters_s else 1
    both = [
        times_by_share(replace(job, optimizer_parties=parties), asked.limits, limit, exchange, batch)
        for job, limit in zip(asked.jobs, asked.memory_limits_bytes, strict=True)
    ]
    apart = min(max(both[0][share], both[1][batch - share]) for share in range(1, batch))
    alone = [
        times_by_share(job, asked.limits, limit, NOTHING, batch)[batch]
        for job, limit in zip(asked.jobs, asked.memory_limits_bytes, strict=True)
    ]
    return min(apart, *alone)


def best_across_s(asked: Mixed) -> float:
    """The least step of a pipeline across the link, over every configuration and every split of the layers."""
    best = LARGE
    known: Known = {}
    for chain in ((0, 1), (1, 0)):
        links = [asked.islands.link_of[frozenset(chain)]]
        limits = [asked.memory_limits_bytes[island] for island in chain]
        members = members_of(asked.jobs, asked.limits, asked.memory_limits_bytes)
        own = [members[island] for island in chain]
        for found in configurations(own, links, share=float(asked.batch), below_s=LARGE):
            for row in range(len(found)):
                total = -(-asked.batch // int(found.sequences[row]))
                stages = stages_of(found, row, total=total, memory_limits_bytes=limits, below_s=LARGE, known=known)
                if stages is not None:
                    best = min(best, *_steps(stages, total))
    return best


def _steps(stages: Stages, total: int) -> Iterator[float]:
    """The step of every split that fits."""
    layers, holding = len(stages.job.model.layers), np.flatnonzero(stages.island >= 0)
    yield LARGE
    for cuts in combinations(range(1, layers), len(holding) - 1):
        sizes = np.zeros(len(stages.island), dtype=np.int64)
        sizes[holding] = np.diff([0, *cuts, layers])
        starts = np.cumsum(sizes) - sizes
        options = np.searchsorted(stages.options.sizes, sizes)
        number = np.arange(len(sizes))
        if (options < len(stages.options.sizes)).all() and stages.options.is_open[number, starts, options].all():
            figures = stages.options.figures.at(number, starts[np.newaxis], options[np.newaxis])
            yield float(steps_of(stages, figures, total=float(total))[0]) + stages.job.stack.step_overhead
