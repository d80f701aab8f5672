"""The plan's section of a chain, from what the search found of it; and what its links pass in a step."""

from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np

from meshwright.costmodels.device_memory import nvidia_smi_bytes, stage_memory
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_work import ACTIVATION_BYTES
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.pass_times import pass_times
from meshwright.costmodels.predict import predict_time
from meshwright.costmodels.stage_table import stage_table
from meshwright.costmodels.stages import stage_chunks
from meshwright.planner.figures import significant, significant_bytes
from meshwright.planner.mixed.chain_cut import ChainCut
from meshwright.planner.mixed.plan_schema import ChainSection, MixedStageSection, ReplicasSection
from meshwright.planner.mixed.question import Mixed
from meshwright.planner.mixed.solution import Party, Solution
from meshwright.planner.plan_schema import LayoutSection


def chain_section(asked: Mixed, party: Party) -> ChainSection:
    """Give the section of a chain."""
    if party.cut is None:
        stages, breakdown = _own(party)
    else:
        stages, breakdown = _cut_stages(party, party.cut), _cut_breakdown(asked, party, party.cut)
    return ChainSection(
        islands=party.chain,
        layouts=tuple(LayoutSection.of(layout) for layout in party.layouts),
        stages=stages,
        crossing_s=() if party.cut is None else tuple(map(significant, party.cut.crossing_s)),
        buffered=party.cut is not None and party.cut.buffered,
        replicas=_replicas(party, batch=asked.batch),
        sequences=party.sequences,
        own_step_s=significant(party.own_s),
        time_breakdown_s={name: significant(seconds) for name, seconds in breakdown.items()},
        exposed_s=significant(party.exposed_s),
    )


def _replicas(party: Party, *, batch: int) -> tuple[ReplicasSection, ...]:
    size = party.layouts[0].micro_batch
    return tuple(
        ReplicasSection(
            replicas=len(list(alike)),
            micro_batches=share // size,
            last_micro_batch=share % size,
            sequences=share,
            gradient_weight=share / batch,
        )
        for share, alike in groupby(party.shares)
    )


def _own(party: Party) -> tuple[tuple[MixedStageSection, ...], dict[str, float]]:
    """Give the stages of an island alone, and its step by part."""
    (layout,) = party.layouts
    job, table = party.job, LayoutTable.of([layout])
    times, model = pass_times(job, layout), job.model
    weight_s = times.weight_s or tuple(tuple(0.0 for _ in stage) for stage in times.backward_s)
    peaks = _peaks(job, layout)
    stages = tuple(
        MixedStageSection(
            stage=number,
            island=party.chain[0],
            chunks=tuple((chunk[0], chunk[-1]) for chunk in held.layers),
            recomputed=None,
            embedding=any(held.embedding),
            head=any(held.head),
            forward_s=significant(sum(times.forward_s[number])),
            backward_s=significant(sum(times.backward_s[number]) + sum(weight_s[number])),
            end_s=None,
            peak_bytes=significant_bytes(peaks[number]),
        )
        for number, held in enumerate(stage_chunks(len(model.layers), layout, mtp_layers=model.mtp_layers))
    )
    breakdown = {str(cause): float(seconds[0]) for cause, seconds in predict_time(job, table).breakdown.items()}
    if party.tail_s:
        breakdown["last_micro_batch"] = party.tail_s
    return stages, breakdown


def _peaks(job: Job, layout: Layout) -> list[float]:
    """Give the peak bytes of each stage, as nvidia-smi counts them."""
    table = LayoutTable.of([layout])
    stages = stage_table(job.model, table)
    peaks = nvidia_smi_bytes(job, table, stage_memory(job, table, stages).held_bytes)[0]
    return np.repeat(peaks, stages.multiplicity[0]).tolist()


def _cut_stages(party: Party, cut: ChainCut) -> tuple[MixedStageSection, ...]:
    ends = np.cumsum(cut.layers)
    last = len(cut.layers) - 1
    return tuple(
        MixedStageSection(
            stage=stage,
            island=party.chain[cut.island[stage]],
            chunks=((int(ends[stage] - count), int(ends[stage] - 1)),),
            recomputed=(cut.recomputed[stage],),
            embedding=stage == 0,
            head=stage == last,
            forward_s=significant(cut.forward_s[stage]),
            backward_s=significant(cut.backward_s[stage]),
            end_s=significant(cut.end_s[stage]),
            peak_bytes=significant_bytes(cut.peak_bytes[stage]),
        )
        for stage, count in enumerate(cut.layers)
    )


def _cut_breakdown(asked: Mixed, party: Party, cut: ChainCut) -> dict[str, float]:
    """Give the step of a chain by part: the busiest stage's passes, what it waits for others, the end of a step.

    Where stages are skipped, all passes are one part.
    """
    end_s, overhead_s = max(cut.end_s), asked.jobs[0].stack.step_overhead
    busy_s = cut.total * max(map(sum, zip(cut.forward_s, cut.backward_s, strict=True)))
    busy_s = min(busy_s, party.own_s - end_s - overhead_s)
    return {
        "passes": busy_s,
        "bubble": max(party.own_s - busy_s - end_s - overhead_s, 0.0),
        "end": end_s,
        "step_overhead": overhead_s,
    }


def link_bytes(asked: Mixed, best: Solution) -> tuple[float, float]:
    """Give the bytes that links pass in a step, both ways, and what they cost in USD.

    Of a pipeline that crosses a link, each token's activations go one way and their gradients the other.
    """
    job, links = asked.jobs[0], asked.islands.link_of
    sent, usd = best.exchange.sent_bytes, 0.0
    dearest = max((link.price_usd_per_gigabyte for link in links.values()), default=0.0)
    usd += best.exchange.sent_bytes / 1e9 * dearest
    for party in best.parties:
        state = 2.0 * ACTIVATION_BYTES * job.model.hidden * job.sequence_length * party.sequences
        for pair in _pairs(party.chain):
            sent += state
            usd += state / 1e9 * links[frozenset(pair)].price_usd_per_gigabyte
    return sent, usd


def _pairs(chain: Sequence[int]) -> list[tuple[int, int]]:
    return list(pairwise(chain))
