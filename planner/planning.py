"""From inputs to a plan: the jobs to search, the search, and the plan of what it found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.precision import Precision
from meshwright.catalog.stack_entry import StackEntry
from meshwright.catalog.uncertainty import shipped_uncertainty
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.pass_times import ByChunk, pass_times
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.costmodels.stages import ends_of_stage, stage_chunks
from meshwright.costmodels.transformer import Transformer
from meshwright.planner.device_numbers import device_numbers
from meshwright.planner.digest import digest_of
from meshwright.planner.figures import significant, significant_bytes
from meshwright.planner.job_inputs import OverlayGiven, inputs_of, job_of
from meshwright.planner.layout.fewest import fewest_devices
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.objective import SLOWER_BY_AT_MOST, Objective
from meshwright.planner.layout.question import Found, Question, SearchResult, Watch
from meshwright.planner.layout.risk import NO_RISK, Risk
from meshwright.planner.layout.search import search
from meshwright.planner.plan_schema import (
    FORMAT_VERSION,
    AlternativeSection,
    AxisSection,
    DigestedInputs,
    Inputs,
    IntervalSection,
    LayoutSection,
    MeshSection,
    PassesSection,
    PeakMemory,
    Plan,
    PredictedSection,
    Proof,
    SearchSection,
    StageSection,
    TrainingSection,
    UnrestrictedSection,
)
from meshwright.planner.practices import practices_of
from meshwright.planner.ranks import EXPERT_ORDERS, MESH_ORDERS, mesh_axes
from meshwright.planner.targets import Target, limits_under, unrestricted
from meshwright.planner.uncertainty import Knowledge, Quantity, interval, practised_by, reasons, upper_factors


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedPlan:
    """A plan, and how long its search took; that is no part of the plan, which is the same whenever it is made."""

    plan: Plan
    search_s: float


def plan(  # noqa: PLR0913 - one argument a field of the job
    model: str | Path | ModelEntry,
    cluster: str | Path | ClusterEntry,
    *,
    global_batch: int,
    sequence_length: int,
    precision: str | Precision = Precision.BF16,
    objective: str | Objective = Objective.TIME,
    top: int = 5,
    memory_headroom: float = 0.05,
    limits: Limits | Mapping[str, object] | None = None,
    time_limit_s: float | None = None,
    tokens: int | None = None,
    slower_by: float | None = None,
    target_time_s: float | None = None,
    target: str | Target | None = None,
    stack: str | StackEntry | None = None,
    overlays: Sequence[OverlayGiven] = (),
) -> Plan:
    """Find the best layout for training a model on a cluster.

    Args:
        model: a catalog name, the path of a model file or of a Hugging Face config, or an entry.
        cluster: a catalog name, optionally with its size ("dgx-h100:64"), a path likewise, or an entry.
        global_batch: sequences of one optimizer step.
        sequence_length: tokens of a sequence.
        precision: of the matrix products.
        objective: least step time; least price or energy of a token; least peak memory; or fewest devices.
        top: how many alternatives to give.
        memory_headroom: share of device memory to leave free.
        limits: what is asked of the layout itself, such as {"fix": {"tensor_parallel": 8}, "forbid": {"schedule":
            ["gpipe"]}, "max": {"pipeline_parallel": 8}}; layout/limited_fields.py lists the fields.
        time_limit_s: when to stop searching and give the best layout so far, with what it may be short of the best.
        tokens: how many to train on, to say what that comes to.
        slower_by: for the least memory, by how much a layout may be slower than the fastest; 0.1 if None.
        target_time_s: for the fewest devices, what all tokens may take, or a step where none are given.
        target: the launcher that is to run it: megatron-core, torchtitan, deepspeed, fsdp2 or mindspeed.
        stack: the training software; by default that of the cluster's device.
        overlays: files of calibrated figures, or entries, to lay over those of the catalog; the last counts most.

    Raises InputError, MissingData where the catalog lacks a number, and Infeasible where nothing fits.

    """
    inputs = inputs_of(
        model,
        cluster,
        stack=stack,
        overlays=overlays,
        global_batch=global_batch,
        sequence_length=sequence_length,
        precision=precision,
        objective=objective,
        top=top,
        memory_headroom=memory_headroom,
        limits=limits or {},
        time_limit_s=time_limit_s,
        tokens=tokens,
        slower_by=slower_by,
        target_time_s=target_time_s,
        target=target,
    )
    return plan_of(inputs).plan


def plan_of(inputs: Inputs, *, watch: Watch | None = None) -> TimedPlan:
    """Make the plan of resolved inputs; `watch` is told how far the search is. Raises MissingData and Infeasible."""
    start = perf_counter()
    numbers = device_numbers(inputs)
    result = _searched(inputs, numbers, watch)
    free = None
    if inputs.job.target is not None:
        freed = _freed(inputs, spent_s=perf_counter() - start)
        # What the target runs on its own number of devices any software may run there too.
        more = [number for number in device_numbers(freed) if number not in numbers]
        free = _searched(freed, sorted((*numbers, *more), reverse=numbers[0] >= numbers[-1]), watch)
    return TimedPlan(search_s=perf_counter() - start, plan=assembled(inputs, result, free, proof=_proof(result)))


def _freed(inputs: Inputs, *, spent_s: float) -> Inputs:
    """Give inputs without a target, whose stack runs all that there is, with the time that is left."""
    stack = inputs.stack.model_copy(update={"entry": unrestricted(inputs.stack.entry)})
    limit_s = inputs.job.time_limit_s
    left_s = None if limit_s is None else max(limit_s - spent_s, 0.0)
    job = inputs.job.model_copy(update={"target": None, "time_limit_s": left_s})
    return inputs.model_copy(update={"job": job, "stack": stack})


def question_of(inputs: Inputs) -> Question:
    """Give what is asked of a search."""
    asked = inputs.job
    return Question(
        objective=asked.objective,
        memory_limit_bytes=memory_limit_bytes(inputs),
        top=asked.top,
        time_limit_s=asked.time_limit_s,
        limits=limits_under(asked.target, asked.limits),
        risk=_risk(inputs) if asked.objective is Objective.ROBUST else NO_RISK,
        slower_by=SLOWER_BY_AT_MOST if asked.slower_by is None else asked.slower_by,
    )


def _risk(inputs: Inputs) -> Risk:
    """Give the risk of steps on all devices, or as many of them as a layout can use."""
    uncertainty, job = shipped_uncertainty(), job_of(inputs, devices=max(device_numbers(inputs)))
    usual, new = upper_factors(job, uncertainty)
    return Risk(usual=usual, new=new, practised=practised_by(job, uncertainty))


def _searched(inputs: Inputs, numbers: Sequence[int], watch: Watch | None) -> SearchResult:
    asked, question = inputs.job, question_of(inputs)
    jobs = (job_of(inputs, devices=devices) for devices in numbers)
    if asked.target_time_s is not None:
        return fewest_devices(jobs, question, target_s=asked.target_time_s / asked.steps, watch=watch)
    return search(tuple(jobs), question, watch=watch)


def memory_limit_bytes(inputs: Inputs) -> int:
    """Give what a layout may use of a device: its memory less the headroom."""
    return significant_bytes(inputs.device.entry.memory.capacity * (1 - inputs.job.memory_headroom))


def _unrestricted(result: SearchResult, free: SearchResult | None) -> UnrestrictedSection | None:
    if free is None:
        return None
    # Where time ran out, what the target runs may be the best that is known.
    best = min(free, result, key=lambda found: found.value)
    return UnrestrictedSection(
        layout=LayoutSection.of(best.best.layout),
        value=significant(best.value),
        lower_bound=significant(min(best.value, free.lower_bound)),
        costs=significant(result.value / best.value - 1),
    )


def _proof(result: SearchResult) -> Proof:
    return "optimal" if result.value == result.lower_bound else "bounded"


def assembled(inputs: Inputs, result: SearchResult, free: SearchResult | None, *, proof: Proof) -> Plan:
    """Give the plan of what a search found, with what it `free` of a target found."""
    layout = result.best.layout
    job = job_of(inputs, devices=layout.world_size)
    predicted = predicted_of(job, layout, limit=memory_limit_bytes(inputs), tokens=inputs.job.tokens)
    return Plan(
        version=FORMAT_VERSION,
        meshwright=version("meshwright"),
        layout=LayoutSection.of(layout),
        stages=_stages(layout, job.model),
        mesh=MeshSection(
            devices=layout.world_size,
            idle=inputs.cluster.entry.devices - layout.world_size,
            order=MESH_ORDERS[layout.axis_order],
            expert_order=EXPERT_ORDERS[layout.axis_order],
            groups={name: AxisSection.of(axis) for name, axis in mesh_axes(layout).items()},
        ),
        predicted=predicted,
        search=SearchSection(
            candidates=result.candidates,
            feasible=result.feasible,
            rejected=dict(result.rejected),
            lower_bound=result.lower_bound,
            gap=significant(result.value / result.lower_bound - 1),
            proof=proof,
            unrestricted=_unrestricted(result, free),
        ),
        alternatives=tuple(_alternative(found, predicted.step_time_s) for found in result.alternatives),
        inputs=digested(inputs),
    )


def digested(inputs: Inputs) -> DigestedInputs:
    """Give inputs with their digest, as a plan holds them."""
    sections = {name: getattr(inputs, name) for name in Inputs.model_fields}
    return DigestedInputs(**sections, digest=digest_of(inputs.model_dump(mode="json")))


def _stages(layout: Layout, model: Transformer) -> tuple[StageSection, ...]:
    return tuple(
        StageSection(
            stage=stage,
            chunks=tuple((chunk[0], chunk[-1]) for chunk in held.layers),
            embedding=ends_of_stage(layout, stage)[0],
            head=ends_of_stage(layout, stage)[1],
        )
        for stage, held in enumerate(stage_chunks(len(model.layers), layout, mtp_layers=model.mtp_layers))
    )


def predicted_of(job: Job, layout: Layout, *, limit: int, tokens: int | None = None) -> PredictedSection:
    """Predict a layout; `limit` is the device memory that it may use, in bytes, `tokens` what it is to train on."""
    table = LayoutTable.of([layout])
    time, memory = predict_time(job, table), predict_memory(job, table)
    step_time_s = float(time.step_time_s[0])
    device, devices = job.cluster.device, layout.world_size
    price = device.price_usd_per_hour
    uncertainty = shipped_uncertainty()
    nvidia_smi = significant_bytes(memory.nvidia_smi_bytes[0])
    usd_per_step = None if price is None else price * devices * step_time_s / 3600
    joules_per_step = device.power_w * devices * step_time_s
    return PredictedSection(
        step_time_s=significant(step_time_s),
        step_time_interval_s=_interval(step_time_s, Quantity.STEP_TIME, job, layout),
        interval_level=uncertainty.level,
        wider_because=reasons(job, uncertainty, practices_of(layout)),
        tokens_per_s=significant(job.tokens_per_step / step_time_s),
        mfu=significant(time.model_flop / (step_time_s * devices * device.peak(job.precision))),
        usd_per_million_tokens=None if usd_per_step is None else significant(usd_per_step / job.tokens_per_step * 1e6),
        joules_per_token=significant(joules_per_step / job.tokens_per_step),
        training=_training(job, tokens, step_time_s, usd_per_step, joules_per_step) if tokens else None,
        peak_memory_bytes=PeakMemory(
            allocated=significant_bytes(memory.allocated_bytes[0]),
            reserved=significant_bytes(memory.reserved_bytes[0]),
            nvidia_smi=nvidia_smi,
        ),
        nvidia_smi_interval_bytes=_interval(float(nvidia_smi), Quantity.NVIDIA_SMI, job, layout),
        memory_limit_bytes=limit,
        time_breakdown_s={str(cause): significant(value[0]) for cause, value in time.breakdown.items()},
        memory_breakdown_bytes={str(cause): significant_bytes(value[0]) for cause, value in memory.breakdown.items()},
        passes=_passes(job, layout),
    )


def _passes(job: Job, layout: Layout) -> PassesSection:
    times = pass_times(job, layout)
    return PassesSection(
        forward_s=_significant(times.forward_s),
        backward_s=_significant(times.backward_s),
        weight_s=None if times.weight_s is None else _significant(times.weight_s),
        paired_s=None if times.paired_s is None else _significant(times.paired_s),
        message_s=significant(times.message_s),
        message_exposed_s=significant(times.exposed_s),
    )


def _significant(by_chunk: ByChunk) -> ByChunk:
    return tuple(tuple(map(significant, stage)) for stage in by_chunk)


def _training(
    job: Job, tokens: int, step_time_s: float, usd_per_step: float | None, joules_per_step: float
) -> TrainingSection:
    steps = -(-tokens // job.tokens_per_step)
    return TrainingSection(
        tokens=tokens,
        steps=steps,
        time_s=significant(steps * step_time_s),
        usd=None if usd_per_step is None else significant(steps * usd_per_step),
        energy_joules=significant(steps * joules_per_step),
    )


def _interval(value: float, quantity: Quantity, job: Job, layout: Layout) -> IntervalSection:
    """Give the interval of what a plan predicts, whose inputs are all told."""
    found = interval(
        value,
        quantity=quantity,
        job=job,
        knowledge=Knowledge.TOLD,
        uncertainty=shipped_uncertainty(),
        practices=practices_of(layout),
    )
    return IntervalSection(low=significant(found.low), high=significant(found.high))


def _alternative(found: Found, step_time_s: float) -> AlternativeSection:
    return AlternativeSection(
        layout=LayoutSection.of(found.layout),
        step_time_s=found.step_time_s,
        slower_by=significant(found.step_time_s / step_time_s - 1),
        peak_memory_bytes=significant_bytes(found.peak_bytes),
    )
