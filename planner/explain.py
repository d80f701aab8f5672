"""Why this layout: where its time and memory go, what binds it, and what the alternatives lose and where."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout, LayoutTable
from meshwright.costmodels.predict import predict_memory, predict_time
from meshwright.planner.job_inputs import job_of
from meshwright.planner.plan_schema import LayoutSection, OffloadSection, Plan
from meshwright.planner.replica_batches import even_inputs

MEMORY_BINDS_WITHIN = 0.10


class Bound(StrEnum):
    """What a step waits for."""

    COMPUTE = "compute"
    COMMUNICATION = "communication"
    BUBBLE = "bubble"
    OVERHEAD = "overhead"


BOUND_OF_CAUSE = {
    "matmul": Bound.COMPUTE,
    "attention": Bound.COMPUTE,
    "elementwise": Bound.COMPUTE,
    "embedding_and_head": Bound.COMPUTE,
    "recompute": Bound.COMPUTE,
    "gradient_accumulation": Bound.COMPUTE,
    "optimizer": Bound.COMPUTE,
    "bubble": Bound.BUBBLE,
    "tensor_communication": Bound.COMMUNICATION,
    "context_communication": Bound.COMMUNICATION,
    "expert_communication": Bound.COMMUNICATION,
    "pipeline_communication": Bound.COMMUNICATION,
    "gradient_communication": Bound.COMMUNICATION,
    "parameter_communication": Bound.COMMUNICATION,
    "host": Bound.OVERHEAD,
    "step_overhead": Bound.OVERHEAD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a whole: seconds or bytes, and its share."""

    name: str
    amount: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Where an alternative differs from the plan in one cause: positive seconds or bytes are more than the plan's."""

    name: str
    amount: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """An alternative beside the plan.

    changes: for each field of the layout that differs, the plan's value and the alternative's.
    time, memory: by cause, largest difference first; causes that don't differ are left out.
    """

    layout: Layout
    changes: Mapping[str, tuple[object, object]]
    step_time_s: float
    slower_by: float
    peak_bytes: float
    time: tuple[Loss, ...]
    memory: tuple[Loss, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a plan is as it is.

    time, memory, rejected: the parts of the step, of the allocated bytes and of the rejected candidates, largest first.
    bounds: shares of the step by what it waits for, largest first. bound: the largest of them that isn't compute, where
    compute is less than half of the step, else compute.
    memory_share: peak over the limit. memory_binds: it is within 10 % of the limit. offload: what leaves the device,
    where something does; all else but what was rejected is then of the layout without that.
    """

    layout: Layout
    time: tuple[Part, ...]
    bounds: tuple[Part, ...]
    bound: Bound
    memory: tuple[Part, ...]
    memory_share: float
    memory_binds: bool
    rejected: tuple[Part, ...]
    alternatives: tuple[Contrast, ...]
    offload: OffloadSection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evaluated:
    layout: Layout
    time: Mapping[str, float]
    memory: Mapping[str, float]
    peak_bytes: float

    @property
    def step_time_s(self) -> float:
        return sum(self.time.values())


def explain_plan(plan: Plan) -> Explanation:
    """Explain a plan by its own figures, and its alternatives by evaluating them on the plan's own inputs.

    Raises MissingData where the embedded device lacks a number that the cost model needs.
    """
    predicted = plan.predicted
    share = predicted.peak_memory_bytes.nvidia_smi / predicted.memory_limit_bytes
    bounds = _bounds(predicted.time_breakdown_s)
    chosen = _evaluated(plan, plan.layout)
    return Explanation(
        layout=chosen.layout,
        time=_parts(predicted.time_breakdown_s),
        bounds=bounds,
        bound=_bound(bounds),
        memory=_parts(predicted.memory_breakdown_bytes),
        memory_share=share,
        memory_binds=share >= 1 - MEMORY_BINDS_WITHIN,
        rejected=_parts(plan.search.rejected),
        alternatives=tuple(_contrast(chosen, _evaluated(plan, other.layout)) for other in plan.alternatives),
        offload=plan.offload,
    )


def contrast(plan: Plan, layout: Layout) -> Contrast:
    """Set a layout beside that of a plan, both evaluated on the plan's own inputs. Raises MissingData."""
    return _contrast(_evaluated(plan, plan.layout), _evaluated(plan, LayoutSection.of(layout)))


def _parts(amounts: Mapping[str, float]) -> tuple[Part, ...]:
    whole = sum(amounts.values())
    ordered = sorted(amounts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Part(name=name, amount=amount, share=amount / whole) for name, amount in ordered if amount > 0)


def _bounds(breakdown: Mapping[str, float]) -> tuple[Part, ...]:
    amounts: dict[str, float] = {}
    for cause, seconds in breakdown.items():
        bound = BOUND_OF_CAUSE.get(cause, Bound.OVERHEAD)
        amounts[bound] = amounts.get(bound, 0.0) + seconds
    return _parts(amounts)


def _bound(bounds: tuple[Part, ...]) -> Bound:
    shares = {Bound(part.name): part.share for part in bounds}
    if shares.get(Bound.COMPUTE, 0.0) >= 0.5:
        return Bound.COMPUTE
    return next(Bound(part.name) for part in bounds if part.name != Bound.COMPUTE)


def _evaluated(plan: Plan, section: LayoutSection) -> _Evaluated:
    layout = section.layout()
    batches = plan.replica_batches if section is plan.layout else None
    job: Job = job_of(even_inputs(plan.inputs, layout, batches), devices=layout.world_size)
    table = LayoutTable.of([layout])
    time, memory = predict_time(job, table), predict_memory(job, table)
    return _Evaluated(
        layout=layout,
        time={str(cause): float(value[0]) for cause, value in time.breakdown.items()},
        memory={str(cause): float(value[0]) for cause, value in memory.breakdown.items()},
        peak_bytes=float(memory.nvidia_smi_bytes[0]),
    )


def _contrast(chosen: _Evaluated, other: _Evaluated) -> Contrast:
    fields = LayoutSection.model_fields
    pairs = {name: (getattr(chosen.layout, name), getattr(other.layout, name)) for name in fields}
    return Contrast(
        layout=other.layout,
        changes={name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
        step_time_s=other.step_time_s,
        slower_by=other.step_time_s / chosen.step_time_s - 1,
        peak_bytes=other.peak_bytes,
        time=_losses(chosen.time, other.time),
        memory=_losses(chosen.memory, other.memory),
    )


def _losses(chosen: Mapping[str, float], other: Mapping[str, float]) -> tuple[Loss, ...]:
    amounts = {cause: other.get(cause, 0.0) - chosen.get(cause, 0.0) for cause in dict.fromkeys((*chosen, *other))}
    ordered = sorted(amounts.items(), key=lambda item: (-abs(item[1]), item[0]))
    return tuple(Loss(name=cause, amount=amount) for cause, amount in ordered if amount)
