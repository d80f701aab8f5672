"""The schema of a plan file, format version 1: what was asked, what was found, and what is known of how good it is.

Pydantic checks types and ranges here; `consistency.py` checks that the sections agree with one another.
"""

from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.cluster_entry import ClusterEntry
from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.device_entry import DeviceEntry
from meshwright.catalog.entry import Count, Entry, Name, Natural, field_error
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.overlay_entry import OverlayEntry
from meshwright.catalog.precision import Precision
from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import StackEntry
from meshwright.costmodels.layout import Layout, Recompute
from meshwright.planner.layout.limits import Limits
from meshwright.planner.layout.objective import Objective
from meshwright.planner.ranks import Axis, RankPlan, rank_plan
from meshwright.planner.targets import Target

FORMAT_VERSION = 1

AnyEntry = TypeVar("AnyEntry", bound=Entry)
Seconds = Annotated[float, Field(ge=0)]
PositiveSeconds = Annotated[float, Field(gt=0)]
ByteCount = Annotated[int, Field(ge=0, strict=True)]
Tally = Annotated[int, Field(ge=0, strict=True)]
PositiveTally = Annotated[int, Field(ge=1, strict=True)]
Proof = Literal["optimal", "bounded", "given"]
Layer = Annotated[int, Field(ge=0, lt=10_000, strict=True)]


class Section(BaseModel):
    """Base of every part of the plan: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class JobSection(Section):
    """What is asked, in sequences and tokens.

    memory_headroom: the share of device memory that is left free. limits: what is asked of the layout itself.
    time_limit_s: when to stop searching. tokens: how many to train on in all. slower_by: for the memory, by how much a
    layout may be slower than the fastest (None: objective.py's). target_time_s: for the fewest devices, how long all
    tokens may take, or a step where none are given. target: the launcher that is to run it.
    """

    precision: Precision
    global_batch: Annotated[int, Field(ge=1, le=10**7, strict=True)]
    sequence_length: Annotated[int, Field(ge=1, le=10**8, strict=True)]
    objective: Objective
    memory_headroom: Annotated[float, Field(ge=0, lt=1)]
    top: Annotated[int, Field(ge=0, le=1000, strict=True)]
    limits: Limits = Limits()
    time_limit_s: Annotated[float, Field(gt=0, le=1e7)] | None = None
    tokens: Annotated[int, Field(ge=1, le=10**18, strict=True)] | None = None
    slower_by: Annotated[float, Field(ge=0, le=100)] | None = None
    target_time_s: Annotated[float, Field(gt=0, le=1e12)] | None = None
    target: Target | None = None

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step."""
        return self.global_batch * self.sequence_length

    @property
    def steps(self) -> int:
        """Steps that all tokens take, rounded up; one where none are given."""
        return 1 if self.tokens is None else -(-self.tokens // self.tokens_per_step)

    @model_validator(mode="after")
    def _fit_the_objective(self) -> Self:
        objective = self.objective
        if self.time_limit_s is not None and objective in (Objective.MEMORY, Objective.DEVICES):
            raise field_error("time_limit_s", f"isn't for {objective}, of which nothing is known before the end")
        if self.slower_by is not None and objective is not Objective.MEMORY:
            raise field_error("slower_by", f"is for the objective memory, not for {objective}")
        if self.target_time_s is not None and objective is not Objective.DEVICES:
            raise field_error("target_time_s", f"is for the objective devices, not for {objective}")
        if self.target_time_s is None and objective is Objective.DEVICES:
            raise field_error(
                "target_time_s",
                "is missing: the fewest devices are those that reach a time",
                hint="such as --target-time 10s for a step, or --tokens 15T --target-time 30d for all of them",
            )
        return self


class Embedded(Section, Generic[AnyEntry]):
    """A catalog entry as it was, written out; `from_catalog`: it was asked for by name, not by a file."""

    from_catalog: bool
    entry: AnyEntry


class Inputs(Section):
    """All that the plan follows from. A cluster's device stands apart from it; its `device` is only the name.

    overlays: what was laid over device, cluster and stack, in this order; their entries hold its figures already.
    """

    job: JobSection
    model: Embedded[ModelEntry]
    cluster: Embedded[ClusterEntry]
    device: Embedded[DeviceEntry]
    stack: Embedded[StackEntry]
    overlays: tuple[OverlayEntry, ...] = ()


class DigestedInputs(Inputs):
    """Inputs as a plan holds them; `digest` is of their canonical JSON, so that an edit by hand shows."""

    digest: Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


class LayoutSection(Section):
    """The layout; the glossary of its fields is that of `meshwright.costmodels.layout.Layout`."""

    tensor_parallel: Count
    sequence_parallel: Annotated[bool, Field(strict=True)]
    context_parallel: Count
    context_method: ContextMethod
    ulysses_parallel: Count
    pipeline_parallel: Count
    virtual_pipeline: Count
    split: tuple[Natural, ...]
    vocabulary_parallel: Annotated[bool, Field(strict=True)]
    data_parallel: Count
    axis_order: AxisOrder
    expert_parallel: Count
    expert_tensor_parallel: Count
    zero_stage: Annotated[int, Field(ge=0, le=3, strict=True)]
    zero_shard: Count
    gradient_shard: Count | None
    parameter_shard: Count | None
    backward_shard: Count | None
    recompute: Recompute
    recompute_layers: Count | None
    recompute_split: tuple[Natural, ...]
    schedule: Schedule
    micro_batch: Count

    @classmethod
    def of(cls, layout: Layout) -> Self:
        """Make the section of a layout."""
        return cls(**{name: getattr(layout, name) for name in cls.model_fields})

    def layout(self) -> Layout:
        """Give the layout."""
        return Layout(**{name: getattr(self, name) for name in type(self).model_fields})


LayerRange = tuple[Layer, Layer]


class StageSection(Section):
    """One pipeline stage: the first and last layer of each of its chunks; whether it has the embedding, the head."""

    stage: Natural
    chunks: Annotated[tuple[LayerRange, ...], Field(min_length=1)]
    embedding: bool
    head: bool

    def layers(self) -> tuple[tuple[int, ...], ...]:
        """Give the layers of each chunk, from 0."""
        return tuple(tuple(range(first, last + 1)) for first, last in self.chunks)


class AxisSection(Section):
    """The groups of one axis: `size` ranks, `stride` apart, the first ones where (rank // stride) mod size = 0."""

    size: Count
    stride: Count

    @classmethod
    def of(cls, axis: Axis) -> Self:
        """Make the section of an axis."""
        return cls(size=axis.size, stride=axis.stride)


class MeshSection(Section):
    """How ranks are numbered. The two orders name axes, fastest first; experts group the same ranks by the second.

    idle: devices of the cluster that the layout leaves unused.
    """

    devices: Count
    idle: Natural
    order: tuple[Name, ...]
    expert_order: tuple[Name, ...]
    groups: dict[str, AxisSection]


class PeakMemory(Section):
    """Peak of the worst rank: what the allocator hands out, what it reserves, and what nvidia-smi shows."""

    allocated: ByteCount
    reserved: ByteCount
    nvidia_smi: ByteCount


class IntervalSection(Section):
    """From low to high, in the unit of what it is of."""

    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]


class TrainingSection(Section):
    """What training on all tokens that were asked for comes to, at the predicted step time.

    energy_joules: of the devices, if they draw their power limit all the time; they draw that at most.
    """

    tokens: PositiveTally
    steps: PositiveTally
    time_s: PositiveSeconds
    usd: Annotated[float, Field(gt=0)] | None
    energy_joules: Annotated[float, Field(gt=0)]


SecondsByChunk = Annotated[tuple[tuple[Seconds, ...], ...], Field(min_length=1)]


class PassesSection(Section):
    """What a pass of one micro-batch takes, by stage and by chunk as `stages` lists them.

    backward_s: without weight_s, which are those of weight gradients where the schedule puts them off, else null.
    paired_s: what a forward and a backward pass of the chunk save as a pair (of two chunks, half of both; negative
    where they lose by it), null where the schedule has no pairs.
    message_s: one message between stages. message_exposed_s: by how much a forward or a backward pass is longer for
    the messages beside it.
    """

    forward_s: SecondsByChunk
    backward_s: SecondsByChunk
    weight_s: SecondsByChunk | None
    paired_s: tuple[tuple[float, ...], ...] | None
    message_s: Seconds
    message_exposed_s: Seconds


class PredictedSection(Section):
    """The predictions for the layout; the breakdowns sum to the step time and to the allocated bytes.

    mfu: model FLOP, recomputation not counted, over what the devices' peak would do in the step.
    step_time_interval_s, nvidia_smi_interval_bytes: hold what will be measured as often as interval_level says, by how
    far predictions were from measurements that no constant had seen; wider_because: what no measurement covers.
    memory_limit_bytes: device memory less the headroom, which nvidia_smi stays within.
    usd_per_million_tokens: of the devices that the layout uses; null where the catalog has no price.
    joules_per_token: of the same, if they draw their power limit all the time; they draw that at most.
    training: of all tokens, where their number was asked for.
    passes: what the step is made of: beside them it has only what the breakdown says of gradients, parameters, the
    optimizer and the step's overhead.
    """

    step_time_s: PositiveSeconds
    step_time_interval_s: IntervalSection
    interval_level: Annotated[float, Field(gt=0, lt=1)]
    wider_because: tuple[str, ...]
    tokens_per_s: Annotated[float, Field(gt=0)]
    mfu: Annotated[float, Field(gt=0)]
    usd_per_million_tokens: Annotated[float, Field(gt=0)] | None
    joules_per_token: Annotated[float, Field(gt=0)]
    training: TrainingSection | None
    peak_memory_bytes: PeakMemory
    nvidia_smi_interval_bytes: IntervalSection
    memory_limit_bytes: ByteCount
    time_breakdown_s: Annotated[dict[str, Seconds], Field(min_length=1)]
    passes: PassesSection
    memory_breakdown_bytes: Annotated[dict[str, ByteCount], Field(min_length=1)]


class UnrestrictedSection(Section):
    """What a search with the same constants over all that any training software runs found.

    value: what that layout comes to under the objective, in the unit of lower_bound. costs: by how much the plan comes
    to more than that, relative. lower_bound: what no layout comes to less than; the value, where time didn't run out.
    """

    layout: LayoutSection
    value: Annotated[float, Field(gt=0)]
    lower_bound: Annotated[float, Field(gt=0)]
    costs: Annotated[float, Field(gt=-1)]


class SearchSection(Section):
    """What the search proved.

    candidates = feasible + sum of rejected, each counted under the first reason. Feasible are those that were evaluated
    and fit; those that a lower bound makes too slow to be of use weren't evaluated, which is a reason too.
    lower_bound: nothing that fits comes to less under the objective: seconds of a step; for cost and energy
    device-seconds of a step; for memory bytes; for devices their number. gap: by how much the plan comes to more than
    that, relative.
    proof: optimal means that the gap is 0; bounded that time ran out before; given that there was no search, as the
    layout was given: the one candidate is it, and the bound holds for nothing else.
    unrestricted: where a target was asked for, what would be best without it.
    """

    candidates: PositiveTally
    feasible: PositiveTally
    rejected: dict[str, Tally]
    lower_bound: Annotated[float, Field(gt=0)]
    gap: Annotated[float, Field(ge=0)]
    proof: Proof
    unrestricted: UnrestrictedSection | None


ActivationChoice = Literal["keep", "offload", "recompute"]
ParameterChoice = Literal["kept", "sharded", "streamed"]
Portion = Annotated[float, Field(ge=0, le=1)]


class OptimizerShares(Section):
    """Shares of a rank's parameters: updated on the host, streamed through the device, resident there; they sum to 1.

    nvme: of the host's, those whose states are on its drives.
    """

    cpu: Portion
    streamed: Portion
    resident: Portion
    nvme: Portion = 0.0


class OffloadMemory(Section):
    """Peak of a rank: on the device as nvidia-smi shows it, on its host and on its drives."""

    device: ByteCount
    host: ByteCount
    nvme: ByteCount


class OffloadSection(Section):
    """What leaves the device; `predicted` is of the layout without that, with everything kept.

    lower_bound_s: no such decision under the same laws is faster. activations: by layer of the neediest rank, and by
    class of tensors. parameters: by layer; streamed_shares: of a layer's, those that stream. budget_bytes: what the
    device may hold. settings: what the target is told.
    """

    target: Name
    step_time_s: PositiveSeconds
    lower_bound_s: PositiveSeconds
    breakdown_s: dict[str, float]
    optimizer: OptimizerShares
    activations: tuple[dict[str, ActivationChoice], ...]
    parameters: tuple[ParameterChoice, ...]
    streamed_shares: tuple[Portion, ...]
    memory_bytes: OffloadMemory
    budget_bytes: ByteCount
    settings: dict[str, Any]


def _nothing(section: object) -> bool:
    return section is None


class ReplicaBatch(Section):
    """So many replicas, one after another, that run so many micro-batches a step each."""

    replicas: PositiveTally
    micro_batches: PositiveTally


class AlternativeSection(Section):
    """The best layout of another mesh; `slower_by` is relative to the plan's step, negative where it is faster."""

    layout: LayoutSection
    step_time_s: PositiveSeconds
    slower_by: Annotated[float, Field(gt=-1)]
    peak_memory_bytes: ByteCount


def _whole(version: Any) -> Any:  # noqa: ANN401 - what a file holds
    if type(version) is not int:  # true and 1.0 equal 1
        raise ValueError("must be a whole number")
    return version


class Plan(Section):
    """A plan. `meshwright` is the version that made it. offload: what leaves the device, where something does.

    replica_batches: where replicas run unequal numbers of micro-batches, in order of replicas. Gradients are then
    summed over all micro-batches of all replicas and divided by their number, so that each sequence counts alike.
    """

    version: Annotated[Literal[1], BeforeValidator(_whole)]
    meshwright: Name
    layout: LayoutSection
    stages: Annotated[tuple[StageSection, ...], Field(min_length=1)]
    mesh: MeshSection
    predicted: PredictedSection
    search: SearchSection
    alternatives: tuple[AlternativeSection, ...]
    offload: Annotated[OffloadSection | None, Field(exclude_if=_nothing)] = None
    replica_batches: Annotated[tuple[ReplicaBatch, ...] | None, Field(min_length=1, exclude_if=_nothing)] = None
    inputs: DigestedInputs

    def rank(self, rank: int) -> RankPlan:
        """Give one rank's coordinates, stage, layers and group members.

        Raises InputError where the plan has no such rank.
        """
        return rank_plan(self.layout.layout(), stages=[stage.layers() for stage in self.stages], rank=rank)
