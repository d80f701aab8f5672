"""The cost model's two entry points: step time and peak memory of many layouts at once."""

from collections.abc import Mapping, Sequence

import numpy as np

from meshwright.costmodels.accumulation import accumulation_s
from meshwright.costmodels.device_memory import STEADY, peak_memory
from meshwright.costmodels.job import Job
from meshwright.costmodels.layer_time import Cause, LayerTime, layer_time
from meshwright.costmodels.layout import FloatArray, IntArray, LayoutTable, numbered
from meshwright.costmodels.model_flop import model_flop
from meshwright.costmodels.paired_layers import paired_share, saved_by_pairing_s
from meshwright.costmodels.pipeline_bubble import LayerSeconds, PartTimes, bubble_s
from meshwright.costmodels.pipeline_messages import pipeline_communication_s
from meshwright.costmodels.prediction import MemoryPrediction, Reading, TimePrediction
from meshwright.costmodels.recompute import recomputed_share
from meshwright.costmodels.schedule import SPLIT_BACKWARD, chunk_passes, micro_batches
from meshwright.costmodels.stage_table import StageTable, stage_table
from meshwright.costmodels.state import StageParameters, stage_parameters
from meshwright.costmodels.synchronisation import (
    StageWork,
    exposed_communication_s,
    mirrored_copies_s,
    optimizer_s,
    tied_embedding_s,
)
from meshwright.costmodels.vocabulary import embedding_s, head_s

# What a layer's time depends on, beside whether its weight gradients are put off; layouts that differ elsewhere share
# its evaluation.
LAYER_COLUMNS = (
    "tensor_parallel",
    "sequence_parallel",
    "context_parallel",
    "context_method",
    "ulysses_parallel",
    "expert_parallel",
    "expert_tensor_parallel",
    "micro_batch",
    "recompute",
)


def predict_memory(job: Job, layouts: LayoutTable, *, reading: Reading = STEADY) -> MemoryPrediction:
    """Predict the peak memory of each layout: of the worst rank, unless another reading is asked for."""
    return peak_memory(job, layouts, stage_table(job.model, layouts), reading=reading)


def predict_time(job: Job, layouts: LayoutTable) -> TimePrediction:
    """Predict the step time of each layout.

    A step is the slowest stage's work on all micro-batches, the bubble in which it waits for the other stages, what
    isn't hidden of the replicas' communication, and the optimizer.

    Raises MissingData where the device has no peak for the job's precision.
    """
    stages = stage_table(job.model, layouts)
    kinds = layer_times(job, layouts)
    total = micro_batches(job.global_batch, layouts)
    passes = chunk_passes(layouts, total)
    parameters = stage_parameters(job, layouts, stages)
    parts = part_times(job, layouts, stages, parameters, kinds)
    embedding, head, accumulation = parts.embedding, parts.head, parts.accumulation
    work = stage_work(stages, parts)
    together = paired_share(layouts, total)
    savings = [saved_by_pairing_s(job, time) for time in kinds]
    slowest = stages.slowest(work.forward_s + work.backward_s - _saved_s(stages, together, savings))
    rows = np.arange(len(layouts))
    layers, again = stages.layers[rows, slowest], stages.recomputed[rows, slowest]
    breakdown = {
        str(cause): passes * sum(layers[:, kind] * _both(time, cause) for kind, time in enumerate(kinds))
        for cause in Cause
    }
    for kind, saved in enumerate(savings):
        for cause, saved_s in saved.items():
            breakdown[cause] = breakdown[cause] - passes * together * layers[:, kind] * saved_s
    breakdown["recompute"] = (
        passes
        * parts.share[rows, slowest]
        * sum(again[:, kind] * layer.again_s for kind, layer in enumerate(parts.layers))
    )
    breakdown["embedding_and_head"] = passes * (
        stages.first[rows, slowest] * (embedding[0] + embedding[1]) + stages.last[rows, slowest] * (head[0] + head[1])
    )
    breakdown["gradient_accumulation"] = passes * accumulation[rows, slowest]
    breakdown["bubble"] = bubble_s(job, layouts, stages, parts, total=total)
    whole_s = np.asarray(sum(breakdown.values())) / passes
    beside = work_beside(layouts, work, whole_s)
    breakdown["pipeline_communication"], taken = pipeline_communication_s(job, layouts, total, whole_s)
    gradients_s, gathers_s = exposed_communication_s(
        job, layouts, stages, parameters, work, beside=beside.scaled(1.0 - taken), total=passes
    )
    gradients_s = gradients_s + mirrored_copies_s(job, layouts, parameters)
    step_s = optimizer_s(job, layouts, parameters)
    last_to_end = stages.slowest(gradients_s + gathers_s + step_s)
    breakdown["gradient_communication"] = gradients_s[rows, last_to_end] + tied_embedding_s(job, layouts)
    breakdown["parameter_communication"] = gathers_s[rows, last_to_end]
    breakdown["optimizer"] = step_s[rows, last_to_end]
    breakdown["step_overhead"] = np.full(len(layouts), job.stack.step_overhead)
    return TimePrediction(breakdown=breakdown, model_flop=model_flop(job))


def layer_times(job: Job, layouts: LayoutTable) -> tuple[LayerTime, ...]:
    """Give the seconds of a layer of each kind of the model, [layouts]. Raises MissingData as predict_time does."""
    distinct, back = distinct_layer_rows(layouts)
    return tuple(_taken(layer_time(job, layer, distinct), back) for layer in job.model.layer_kinds)


def part_times(
    job: Job, layouts: LayoutTable, stages: StageTable, parameters: StageParameters, kinds: Sequence[LayerTime]
) -> PartTimes:
    """Give what the parts of a model take, from the times of its kinds of layers and what each stage holds."""
    passes = chunk_passes(layouts, micro_batches(job.global_batch, layouts))
    return PartTimes(
        layers=tuple(LayerSeconds.of(time) for time in kinds),
        share=recomputed_share(layouts, stages),
        embedding=embedding_s(job, layouts),
        head=head_s(job, layouts),
        accumulation=accumulation_s(job, layouts, parameters, total=passes),
    )


def distinct_layer_rows(layouts: LayoutTable) -> tuple[LayoutTable, IntArray]:
    """Give the layouts that differ in what a layer's time depends on, and for each layout which of those it is."""
    code = np.isin(layouts.schedule, SPLIT_BACKWARD).astype(np.int64)
    for name in LAYER_COLUMNS:
        column = getattr(layouts, name)
        _, code = numbered(code * (column.max(initial=0) + 1) + column)
    first = np.zeros(code.max(initial=-1) + 1, dtype=np.int64)
    first[code[::-1]] = np.arange(len(code))[::-1]
    return layouts.take(first), code


def _taken(time: LayerTime, rows: IntArray) -> LayerTime:
    def taken(seconds: FloatArray) -> FloatArray:
        return np.broadcast_to(seconds, rows.max(initial=0) + 1)[rows]

    return LayerTime(
        forward={cause: taken(seconds) for cause, seconds in time.forward.items()},
        backward={cause: taken(seconds) for cause, seconds in time.backward.items()},
        recompute={cause: taken(seconds) for cause, seconds in time.recompute.items()},
        weight_s=taken(time.weight_s),
        launch_s=taken(time.launch_s),
        hidden_s=taken(time.hidden_s),
    )


def _both(time: LayerTime, cause: Cause) -> FloatArray:
    return time.forward[cause] + time.backward[cause]


def stage_work(stages: StageTable, parts: PartTimes) -> StageWork:
    """Add up the layers of each distinct stage; recomputation and accumulation are part of the backward pass."""
    embedding, head = (
        [counts * seconds[:, np.newaxis] for seconds in both_s]
        for counts, both_s in ((stages.first, parts.embedding), (stages.last, parts.head))
    )
    forward_s, backward_s = embedding[0] + head[0], embedding[1] + head[1] + parts.accumulation
    for kind, layer in enumerate(parts.layers):
        layers = stages.layers[:, :, kind]
        forward_s = forward_s + layers * layer.forward_s[:, np.newaxis]
        backward_s = backward_s + layers * layer.backward_s[:, np.newaxis]
        backward_s = backward_s + parts.share * stages.recomputed[:, :, kind] * layer.again_s[:, np.newaxis]
    return StageWork(forward_s=forward_s, backward_s=backward_s)


def _saved_s(stages: StageTable, together: FloatArray, savings: Sequence[Mapping[Cause, FloatArray]]) -> FloatArray:
    """Give what pairs of passes save each stage of a micro-batch's work, [layouts, stages]."""
    kinds_s = np.stack([np.asarray(sum(saved.values())) for saved in savings], axis=-1)
    return np.asarray(np.einsum("l,lsk,lk->ls", together, stages.layers, kinds_s))


def work_beside(layouts: LayoutTable, work: StageWork, whole_s: FloatArray) -> StageWork:
    """Give what messages of a micro-batch can run beside on each stage.

    Those are its passes. Where weight gradients are put off they fill what else is idle, so that a message that meets
    none meets idle time: a micro-batch's share of the step then, forward a third of it as of the operations.

    Args:
        layouts: the layouts.
        work: what each stage computes.
        whole_s: seconds of the step, over the micro-batches, [layouts].

    """
    put_off = np.isin(layouts.schedule, SPLIT_BACKWARD)[:, np.newaxis]
    third_s = whole_s[:, np.newaxis] / 3.0
    return StageWork(
        forward_s=np.where(put_off, third_s, work.forward_s),
        backward_s=np.where(put_off, 2.0 * third_s, work.backward_s),
    )
