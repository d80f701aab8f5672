"""From a job and a layout to the problem of one of its ranks: the one that needs the most memory."""

from dataclasses import dataclass, replace

import numpy as np

from meshwright.catalog.precision import Precision
from meshwright.costmodels.backward_peak import backward_parts, loss_bytes, working_bytes
from meshwright.costmodels.device_memory import outside_bytes, stage_memory
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import FloatArray, Layout, LayoutTable, Recompute
from meshwright.costmodels.parameter_bytes import MASTER_BYTES, MOMENTS_BYTES, PARAMETER_BYTES, parameter_bytes
from meshwright.costmodels.predict import layer_times, part_times, predict_time, stage_work
from meshwright.costmodels.schedule import chunk_passes, held_micro_batches, micro_batches
from meshwright.costmodels.sharding import dense_sharding, expert_sharding
from meshwright.costmodels.stage_table import StageTable, stage_table
from meshwright.costmodels.stages import stage_chunks
from meshwright.costmodels.state import layer_on_rank, stage_parameters
from meshwright.costmodels.synchronisation import optimizer_s
from meshwright.costmodels.tensor_classes import class_costs
from meshwright.costmodels.vocabulary import head_s
from meshwright.planner.offload.forward_only import Mode, forward_only
from meshwright.planner.offload.host import Host
from meshwright.planner.offload.optimizer_law import STATE_BYTES, OptimizerWork
from meshwright.planner.offload.problem import CLASSES, SUBGROUPS, WINDOW, DeviceMemory, Layers, Problem
from meshwright.planner.offload.tensors import layer_tensors

# Subgroups that are on the device at once: one on its way in, one updated, one on its way out.
STREAMED_AT_ONCE = 3


def without_recompute(layout: Layout) -> Layout:
    """Give a layout that keeps everything."""
    return replace(layout, recompute=Recompute.NONE, recompute_layers=None, recompute_split=())


def problem_of(job: Job, layout: Layout, host: Host, *, limit_bytes: float, mode: Mode = Mode.TRAINING) -> Problem:
    """Make the problem of a layout's neediest rank.

    All ranks take one decision. Passes are those of the slowest stage, where that isn't the neediest.

    Args:
        job: the job.
        layout: the layout, of which only the recomputation isn't asked for.
        host: of a rank.
        limit_bytes: what nvidia-smi may show.
        mode: what a step is.

    """
    table = LayoutTable.of([without_recompute(layout)])
    stages = stage_table(job.model, table)
    stage = int(np.argmax(stage_memory(job, table, stages).backward_bytes[0]))
    rank = _Rank(job=job, table=table, stages=stages, stage=stage)
    training = rank.problem(host, limit_bytes=limit_bytes)
    if mode is Mode.TRAINING:
        return training
    breakdown = predict_time(job, table).breakdown
    return forward_only(training, mode, head_s=rank.head_s, gathered_s=float(breakdown["parameter_communication"][0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rank:
    """A rank of one stage of one layout."""

    job: Job
    table: LayoutTable
    stages: StageTable
    stage: int

    @property
    def kinds(self) -> tuple[int, ...]:
        """The kind of each layer on the rank, in the model's order; MTP modules are as its last layer."""
        model = self.job.model
        held = stage_chunks(len(model.layers), self.table.row(0), mtp_layers=model.mtp_layers)
        stage = held[int(self.stages.index[0, self.stage])]
        own = sorted(layer for chunk in stage.layers for layer in chunk)
        mtp = (model.kind_of_layer[-1],) * model.mtp_layers * any(stage.head)
        return (*(model.kind_of_layer[layer] for layer in own), *mtp)

    @property
    def head_s(self) -> float:
        """Seconds of the head's forward pass of a micro-batch, 0 where the stage has none."""
        return float(self.stages.last[0, self.stage] * head_s(self.job, self.table)[0][0])

    def problem(self, host: Host, *, limit_bytes: float) -> Problem:
        job, table, stages = self.job, self.table, self.stages
        parameters = stage_parameters(job, table, stages)
        total = micro_batches(job.global_batch, table)
        passes = float(chunk_passes(table, total)[0])
        parts = part_times(job, table, stages, parameters, layer_times(job, table))
        work = stage_work(stages, parts)
        slowest_s = float((work.forward_s + work.backward_s)[0].max())
        predicted = predict_time(job, table)
        waiting_s = float(predicted.breakdown["bubble"][0])
        optimizer = float(optimizer_s(job, table, parameters)[0, self.stage])
        first, last = stages.first[0, self.stage], stages.last[0, self.stage]
        step_s, updated_s = float(predicted.step_time_s[0]), float(predicted.breakdown["optimizer"][0])
        return Problem(
            layers=self._layers(),
            memory=self._memory(limit_bytes),
            host=host,
            optimizer=self._optimizer(optimizer),
            first_s=float(first * parts.embedding[0][0]),
            middle_s=float(last * (parts.head[0][0] + parts.head[1][0])),
            last_s=float(first * parts.embedding[1][0] + parts.accumulation[0, self.stage]),
            passes=passes,
            stretch=1 + waiting_s / (passes * slowest_s),
            slowest_s=slowest_s,
            other_s=step_s - passes * slowest_s - waiting_s - updated_s,
            held=self._held(total),
        )

    def _held(self, total: FloatArray) -> float:
        return float(held_micro_batches(self.table, self.stages.index, total=total)[0, self.stage])

    def _layers(self) -> Layers:
        job, table, kinds = self.job, self.table, list(self.kinds)
        times = layer_times(job, table)
        forward = np.array([float(np.asarray(sum(time.forward.values()))[0]) for time in times])
        backward = np.array([float(np.asarray(sum(time.backward.values()))[0]) for time in times])
        costs = [class_costs(job, layer, table) for layer in job.model.layer_kinds]
        kept = np.array([[float(cost.kept_bytes[name][0]) for name in CLASSES] for cost in costs])
        again = np.array(
            [[float(cost.again_s[name][0]) if name in cost.again_s else np.inf for name in CLASSES] for cost in costs]
        )
        weights, gradients = self._layer_states()
        return Layers(
            forward_s=forward[kinds],
            backward_s=backward[kinds],
            whole_s=forward[kinds],
            kept_bytes=kept[kinds],
            again_s=again[kinds],
            weight_bytes=weights[kinds],
            drain_bytes=gradients[kinds] if self._drains() else np.zeros(len(kinds)),
        )

    def _layer_states(self) -> tuple[FloatArray, FloatArray]:
        """Give by kind what a rank holds of a layer's parameters, and sends of its gradients."""
        job, table = self.job, self.table
        dense, experts = dense_sharding(job, table), expert_sharding(job, table)
        on_rank = [layer_on_rank(job, layer, table) for layer in job.model.layer_kinds]
        weights = [each.dense / dense.parameters + each.experts / experts.parameters for each in on_rank]
        gradients = [each.dense / dense.gradients + each.experts / experts.gradients for each in on_rank]
        return (
            self._weight_bytes * np.array([float(value[0, 0]) for value in weights]),
            self._wire_bytes * np.array([float(value[0, 0]) for value in gradients]),
        )

    @property
    def _weight_bytes(self) -> int:
        return MASTER_BYTES if self.job.precision is Precision.FP32 else PARAMETER_BYTES

    @property
    def _wire_bytes(self) -> int:
        return min(parameter_bytes(self.job).gradient, MASTER_BYTES)

    def _drains(self) -> bool:
        """Whether gradients are cut as the optimizer's states are, so that a backward pass can send them away."""
        dense = dense_sharding(self.job, self.table)
        return int(dense.gradients[0, 0]) == int(dense.optimizer[0, 0])

    def _parameters(self) -> float:
        """Count the parameters that a rank updates."""
        parameters = stage_parameters(self.job, self.table, self.stages)
        dense, experts = dense_sharding(self.job, self.table), expert_sharding(self.job, self.table)
        updated = parameters.dense / dense.optimizer + parameters.experts / experts.optimizer
        return float(updated[0, self.stage])

    def _optimizer(self, device_s: float) -> OptimizerWork:
        return OptimizerWork(
            parameters=self._parameters(),
            device_s=device_s,
            weight_bytes=self._weight_bytes,
            gradient_bytes=self._wire_bytes,
            drained=self._drains(),
            tensors=self._tensors(),
        )

    def _tensors(self) -> tuple[float, ...]:
        """Give the parameters that a rank updates by tensor; what isn't in layers is embedding and head, in halves."""
        job, table, model = self.job, self.table, self.job.model
        dense, experts = dense_sharding(job, table), expert_sharding(job, table)
        by_kind = []
        for layer in model.layer_kinds:
            own, whole = layer_on_rank(job, layer, table), layer_tensors(model, layer)
            updated = float((own.dense / dense.optimizer + own.experts / experts.optimizer)[0, 0])
            by_kind.append([size * updated / sum(whole) for size in whole])
        layers = [size for kind in self.kinds for size in by_kind[kind]]
        first = bool(self.stages.first[0, self.stage])
        last = bool(self.stages.last[0, self.stage]) and not (first and model.tied_embeddings)
        ends = max(self._parameters() - sum(layers), 0.0) / max(first + last, 1)
        return (*[ends] * first, *layers, *[ends] * last)

    def _memory(self, limit_bytes: float) -> DeviceMemory:
        job, table, stages, stage = self.job, self.table, self.stages, self.stage
        parameters = stage_parameters(job, table, stages)
        memory = stage_memory(job, table, stages)
        states = {name: float(value[0, stage]) for name, value in memory.states.items()}
        backward = {
            name: float(value[0, stage]) for name, value in backward_parts(job, table, stages, parameters).items()
        }
        layers = self._layers()
        count = self._parameters()
        fp32 = job.precision is Precision.FP32
        weights = states["parameters"]
        if not job.stack.master_bytes and not fp32:
            # The fp32 shard counts as the optimizer's; passes have a 16-bit shard beside it.
            weights += (PARAMETER_BYTES - MASTER_BYTES) * count
        held = self._held(micro_batches(job.global_batch, table))
        embedded = backward["activations"] - held * float(layers.kept_bytes.sum())
        outside, slack = float(outside_bytes(job, table)[0]), job.stack.allocator_slack
        flat = bool(table.zero_stage[0] >= 1 and job.stack.flat_optimizer)
        most = float(layers.drain_bytes.max(initial=0.0) / max(layers.drain_bytes.sum(), 1.0))
        return DeviceMemory(
            limit=(limit_bytes - outside) / (1 + slack),
            states=states["workspace"] + max(weights - float(layers.weight_bytes.sum()), 0.0),
            gradients=states["gradients"],
            drained=states["gradients"] * max(1 - WINDOW * most, 0.0) if self._drains() else 0.0,
            optimizer=(MOMENTS_BYTES if fp32 else STATE_BYTES) * count,
            step=states["step_gradients"],
            beside=states["step_gradients"] if flat else 0.0,
            passes=embedded + backward["gathered_parameters"] + backward["quantised_parameters"],
            loss=float(stages.last[0, stage] * loss_bytes(job, table)[0]),
            working=float(working_bytes(job, table, stages)[0, stage]),
            stream=STREAMED_AT_ONCE * STATE_BYTES * count / SUBGROUPS,
            outside=outside,
            slack=slack,
        )
