"""Predicting given layouts: cases in, step time and memory of each out."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from meshwright.catalog.errors import InputError, MeshwrightError
from meshwright.catalog.lookup import entry_names, stack_named
from meshwright.catalog.overlay import Overlays
from meshwright.catalog.stack_entry import StackEntry
from meshwright.catalog.uncertainty import shipped_uncertainty
from meshwright.catalog.uncertainty_entry import UncertaintyEntry
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import RECOMPUTES, Layout, LayoutTable
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.costmodels.prediction import MemoryPrediction, Reading, TimePrediction
from meshwright.planner.accuracy.case import Case, MemoryKind, Trust
from meshwright.planner.accuracy.case_cluster import Machine, cluster_of_case, machine_named
from meshwright.planner.accuracy.case_file import load_cases
from meshwright.planner.accuracy.case_layout import layouts_of_case
from meshwright.planner.accuracy.case_model import transformer_of_case
from meshwright.planner.accuracy.case_pipeline import with_full_streams
from meshwright.planner.accuracy.case_routing import with_published_routing
from meshwright.planner.accuracy.case_stack import stack_for, switch_assumptions, with_switches
from meshwright.planner.practices import practices_of
from meshwright.planner.uncertainty import Interval, Knowledge, Quantity, interval, reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What the cost model says of one case.

    breakdown: seconds by cause, which sum to step_time_s.
    memory_breakdown: bytes by cause, which sum to the allocated ones.
    peak_memory_bytes: of the worst rank, by who counts.
    reported_memory_bytes: the same as the case's source reads it: of the rank that it read, and behind the step that
    its software reports; what a measurement is to be compared with.
    memory_limit_bytes: what the device has.
    intervals: of the step time and each kind of memory, by what is known of the case's inputs.
    wider_because: what no measurement covers, a sentence each.
    assumptions: what the case left open and how it was filled, a sentence each.
    """

    layout: Layout
    step_time_s: float
    tokens_per_s: float
    mfu: float
    peak_memory_bytes: Mapping[MemoryKind, int]
    reported_memory_bytes: Mapping[MemoryKind, int]
    memory_limit_bytes: int
    breakdown: Mapping[str, float]
    memory_breakdown: Mapping[str, int]
    intervals: Mapping[Quantity, Interval]
    wider_because: tuple[str, ...]
    assumptions: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the device holds it."""
        return self.peak_memory_bytes[MemoryKind.NVIDIA_SMI] <= self.memory_limit_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A case with its prediction, or with the reason why there is none. `file` is empty for a case made in Python."""

    case: Case
    file: str
    predicted: Predicted | None
    failure: MeshwrightError | None

    @property
    def place(self) -> str:
        """Where the case stands: its file, where it has one, and its id."""
        return f"{self.file}: case {self.case.id}" if self.file else f"case {self.case.id}"

    @property
    def error(self) -> str | None:
        """Why the case can't be predicted, with what to do about it; None where it can."""
        if self.failure is None:
            return None
        return f"{self.failure.message}; {self.failure.hint}" if self.failure.hint else self.failure.message


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filed:
    case: Case
    file: str


Watch = Callable[[Sequence[_Filed]], Iterable[_Filed]]


def estimate(
    sources: Iterable[str | Path | Case],
    *,
    watch: Watch = iter,
    overlays: Overlays = (),
    machine: Callable[[str], Machine] | None = None,
) -> list[Estimate]:
    """Predict the step time and memory of cases.

    Args:
        sources: files of cases, or cases.
        watch: given all cases, hands them on one by one; a progress bar does.
        overlays: calibrated figures to lay over those of the catalog; the last counts most.
        machine: gives the machine of a device's name, by default that of the catalog under the overlays.

    Raises InputError where a file is wrong. A case that is well formed but can't be predicted doesn't raise: its
    estimate says why.

    """
    filed = [item for source in sources for item in _file(source)]
    stacks = [stack_named(name, overlays) for name in entry_names("stacks")]
    known = cache(machine or partial(machine_named, overlays=tuple(overlays)))
    uncertainty = shipped_uncertainty()
    return [_estimate(item, machine=known, stacks=stacks, uncertainty=uncertainty) for item in watch(filed)]


def job_of_case(case: Case, machine: Machine, stacks: Sequence[StackEntry]) -> tuple[Job, tuple[str, ...]]:
    """Give the job of a case, without its layout, and what had to be assumed of it. Raises InputError."""
    model, of_model = transformer_of_case(case.model)
    model, of_routing = with_published_routing(model, case)
    cluster, of_cluster = cluster_of_case(case.cluster, machine)
    stack, of_stack = stack_for(case.framework, stacks, default=machine.stack)
    job = Job(
        model=model,
        cluster=cluster,
        stack=with_switches(stack, case),
        precision=case.precision,
        global_batch=case.batch.global_batch,
        sequence_length=case.model.sequence_length,
    )
    return job, (*of_model, *of_routing, *of_cluster, *of_stack, *switch_assumptions(case.layout))


def _file(source: str | Path | Case) -> Iterator[_Filed]:
    if isinstance(source, Case):
        yield _Filed(case=source, file="")
        return
    for case in load_cases(Path(source)):
        yield _Filed(case=case, file=str(source))


def _estimate(
    item: _Filed, *, machine: Callable[[str], Machine], stacks: Sequence[StackEntry], uncertainty: UncertaintyEntry
) -> Estimate:
    try:
        job, of_job = job_of_case(item.case, _machine_of(item.case, machine), stacks)
        candidates, of_layout = layouts_of_case(
            item.case,
            defers_synchronisation=job.stack.defers_synchronisation,
            micro_batch_a_stage=job.stack.micro_batch_a_stage,
        )
        predicted = _predict(
            job,
            with_full_streams(LayoutTable.of(candidates), job),
            case=item.case,
            assumptions=(*of_job, *of_layout),
            uncertainty=uncertainty,
        )
    except MeshwrightError as failure:
        return Estimate(case=item.case, file=item.file, predicted=None, failure=failure)
    return Estimate(case=item.case, file=item.file, predicted=predicted, failure=None)


def _machine_of(case: Case, machine: Callable[[str], Machine]) -> Machine:
    try:
        return machine(case.cluster.device)
    except InputError as error:
        raise InputError(error.message, path="cluster.device", hint=error.hint) from None


def _predict(
    job: Job, table: LayoutTable, *, case: Case, assumptions: tuple[str, ...], uncertainty: UncertaintyEntry
) -> Predicted:
    time = predict_time(job, table)
    memory = predict_memory(job, table)
    fits = memory.nvidia_smi_bytes <= job.cluster.device.memory_bytes
    row = _choose(table, time=time, memory=memory, fits=fits)
    step_time_s = float(time.step_time_s[row])
    if not (math.isfinite(step_time_s) and step_time_s > 0 and math.isfinite(memory.nvidia_smi_bytes[row])):
        raise InputError(
            "the case is outside what the cost model can count",
            hint="check the orders of magnitude of its sizes, degrees and bandwidths",
        )
    peak = job.cluster.device.peak(job.precision) * job.cluster.devices
    peaks = _by_kind(memory, row)
    return Predicted(
        layout=table.row(row),
        step_time_s=step_time_s,
        tokens_per_s=job.tokens_per_step / step_time_s,
        mfu=time.model_flop / step_time_s / peak,
        peak_memory_bytes=peaks,
        reported_memory_bytes=_by_kind(predict_memory(job, table, reading=_reading(case, job)), row),
        memory_limit_bytes=job.cluster.device.memory_bytes,
        breakdown={cause: float(seconds[row]) for cause, seconds in time.breakdown.items()},
        memory_breakdown=_rounded_parts(memory, row),
        intervals={
            quantity: interval(
                value,
                quantity=quantity,
                job=job,
                knowledge=KNOWLEDGE[case.trust],
                uncertainty=uncertainty,
                practices=practices_of(table.row(row)),
            )
            for quantity, value in (
                (Quantity.STEP_TIME, step_time_s),
                *((Quantity(kind.value), float(peak)) for kind, peak in peaks.items()),
            )
        },
        wider_because=reasons(job, uncertainty, practices_of(table.row(row))),
        assumptions=(*assumptions, *_chosen(case, table, row, any_fits=bool(fits.any()))),
    )


# How much a case says of what matters; a case of the user's own is taken to say all.
KNOWLEDGE: Mapping[Trust | None, Knowledge] = {
    None: Knowledge.TOLD,
    Trust.HIGH: Knowledge.TOLD,
    Trust.MEDIUM: Knowledge.INFERRED,
    Trust.LOW: Knowledge.UNKNOWN,
}


def _rounded_parts(memory: MemoryPrediction, row: int) -> dict[str, int]:
    return {cause: round(float(bytes_[row])) for cause, bytes_ in memory.breakdown.items()}


def _by_kind(memory: MemoryPrediction, row: int) -> dict[MemoryKind, int]:
    return {
        MemoryKind.ALLOCATED: sum(_rounded_parts(memory, row).values()),
        MemoryKind.RESERVED: round(float(memory.reserved_bytes[row])),
        MemoryKind.NVIDIA_SMI: round(float(memory.nvidia_smi_bytes[row])),
    }


def _reading(case: Case, job: Job) -> Reading:
    """Give which peak the case's source reads: a training script reports to its log once, a driver all the time."""
    measured = case.measured
    if measured is None:
        return Reading()
    logged = measured.peak_memory_kind is MemoryKind.ALLOCATED
    return Reading(last_stage=measured.peak_memory_rank == "last", first_step=logged and job.stack.reports_first_step)


def _choose(table: LayoutTable, *, time: TimePrediction, memory: MemoryPrediction, fits: np.ndarray) -> int:
    """Give the row that will have been run: least recompute that fits, then fastest; where none fits, the smallest."""
    if not fits.any():
        return int(np.argmin(memory.nvidia_smi_bytes))
    least = next(code for code in range(len(RECOMPUTES)) if (fits & (table.recompute == code)).any())
    return int(np.argmin(np.where(fits & (table.recompute == least), time.step_time_s, np.inf)))


def _chosen(case: Case, table: LayoutTable, row: int, *, any_fits: bool) -> Iterator[str]:
    why = "" if any_fits else ", though nothing fits"
    layout = table.row(row)
    if case.layout.recompute is None:
        yield f"recompute isn't given: {layout.recompute}, the least that fits{why}"
    if case.batch.micro_batch is None:
        cut = layout.pipeline_parallel > 1 and len(set(table.micro_batch.tolist())) == 1
        how = "as many as stages, as the software cuts them" if cut else f"the fastest that fits{why}"
        yield f"the micro-batch isn't given: {layout.micro_batch}, {how}"
