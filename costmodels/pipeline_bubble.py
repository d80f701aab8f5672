"""How long the stages of pipelines wait for each other, from what the parts of the model take."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import LayerTime, weight_gradients_s
from meshwright.costmodels.layout import BoolArray, FloatArray, IntArray, LayoutTable
from meshwright.costmodels.schedule import SPLIT_BACKWARD, StageTimes, alike, chunk_passes, waiting_s
from meshwright.costmodels.schedule.laws import Alike
from meshwright.costmodels.stage_table import StageTable
from meshwright.costmodels.vocabulary import head_product

Both = tuple[FloatArray, FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSeconds:
    """Seconds of a layer for one micro-batch, [layouts]: forward, backward, and to compute it again.

    weight_s: of the backward seconds, those of weight gradients in a pass of their own.
    """

    forward_s: FloatArray
    backward_s: FloatArray
    again_s: FloatArray
    weight_s: FloatArray

    @classmethod
    def of(cls, time: LayerTime) -> Self:
        """Add up the causes."""
        forward_s, backward_s, again_s = (
            np.asarray(sum(part.values())) for part in (time.forward, time.backward, time.recompute)
        )
        return cls(forward_s=forward_s, backward_s=backward_s, again_s=again_s, weight_s=time.weight_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTimes:
    """Seconds of a model's parts for one micro-batch.

    layers: of a layer of each kind.
    share: by what the recomputed layers of each stage are multiplied, [layouts, stages] (recompute.py).
    embedding, head: forward and backward, [layouts], of what a stage has of them.
    accumulation: adding its weight gradients to the others', of all that a stage holds, [layouts, stages].
    """

    layers: tuple[LayerSeconds, ...]
    share: FloatArray
    embedding: Both
    head: Both
    accumulation: FloatArray


def bubble_s(job: Job, layouts: LayoutTable, stages: StageTable, parts: PartTimes, *, total: FloatArray) -> FloatArray:
    """Give the seconds of a step beyond the busiest stage's own work, shape [layouts].

    Args:
        job: the job.
        layouts: the layouts.
        stages: their stages.
        parts: what the parts of the model take.
        total: micro-batches of a step, [layouts].

    """
    passes = chunk_passes(layouts, total)
    bubbles_s = np.zeros(len(layouts))
    for group in alike(layouts):
        times = stage_times(job, layouts, stages, parts, group)
        pipeline = layouts.pipeline_parallel[group.rows]
        bubbles_s[group.rows] = waiting_s(
            group.schedule,
            times,
            passes=passes[group.rows],
            pipeline=pipeline,
            together=job.stack.steps_together,
        )
    return bubbles_s


def stage_times(job: Job, layouts: LayoutTable, stages: StageTable, parts: PartTimes, group: Alike) -> StageTimes:
    """Give the stages of some layouts that are alike: the layers of each chunk added up.

    What accumulates gradients is spread over a stage's chunks.
    """
    rows, cuts = group.rows, stages.cuts
    cut = stages.cut[rows]
    each = np.arange(len(cuts.turn))[:, np.newaxis]
    used = cuts.turn_steps > 0

    def at_turns(counts: BoolArray | IntArray) -> FloatArray:
        own = np.where(used[..., np.newaxis], counts[each, cuts.turn, : group.chunks], 0).astype(float)
        return own.transpose(2, 1, 0)[..., cut]

    embedding, head = at_turns(cuts.embedding), at_turns(cuts.head)
    layers = [at_turns(cuts.layers[..., kind]) for kind in range(len(parts.layers))]
    forward_s, backward_s = (embedding * parts.embedding[way][rows] + head * parts.head[way][rows] for way in range(2))
    steps = cuts.turn_steps[cut].T
    again = layers
    if cuts.recomputed is not cuts.layers:
        again = [at_turns(cuts.recomputed[..., kind]) for kind in range(len(parts.layers))]
    accumulation_s, share = (
        np.where(steps > 0, np.take_along_axis(of_stages[rows], cuts.turn[cut], axis=1).T, 0.0)
        for of_stages in (parts.accumulation / group.chunks, parts.share)
    )
    for count, repeated, layer in zip(layers, again, parts.layers, strict=True):
        forward_s = forward_s + count * layer.forward_s[rows]
        backward_s = backward_s + count * layer.backward_s[rows] + share * repeated * layer.again_s[rows]
    backward_s = backward_s + accumulation_s
    weight_s = np.zeros(backward_s.shape)
    if group.schedule in SPLIT_BACKWARD:
        head_s = weight_gradients_s(job, (head_product(job, layouts.take(rows)),))
        weight_s = accumulation_s + head * head_s
        for count, layer in zip(layers, parts.layers, strict=True):
            weight_s = weight_s + count * layer.weight_s[rows]
    return StageTimes(
        stage=cuts.turn_stage[cut].T,
        steps=steps,
        forward_s=forward_s,
        backward_s=backward_s - weight_s,
        weight_s=weight_s,
    )
