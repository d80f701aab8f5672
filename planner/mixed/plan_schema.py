"""The plan file of a mixed cluster: that of a uniform one, with a section `mixed` in the place of one layout."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from meshwright.catalog.entry import Count, Name, Natural, field_error
from meshwright.catalog.mixed_entry import MixedClusterEntry
from meshwright.catalog.model_entry import ModelEntry
from meshwright.catalog.stack_entry import StackEntry
from meshwright.costmodels.island_links import Across
from meshwright.planner.mixed.ways.allowed import Allowed
from meshwright.planner.plan_schema import (
    ByteCount,
    Embedded,
    IntervalSection,
    JobSection,
    LayerRange,
    LayoutSection,
    PositiveSeconds,
    Seconds,
    Section,
)

Crossing = Literal["none", "data", "pipeline", "data and pipeline"]


class IslandSection(Section):
    """An island: its nodes of a group, its devices, and the memory that the plan may use of each.

    peak_bytes: of its fullest device, with the interval that will hold it; null where it stands idle.
    """

    name: Name
    group: Name
    nodes: tuple[Natural, ...]
    device: Name
    devices: Count
    memory_limit_bytes: ByteCount
    peak_bytes: ByteCount | None
    nvidia_smi_interval_bytes: IntervalSection | None


class MixedStageSection(Section):
    """A stage of a chain: its island, by number, and its chunks' first and last layers, counted from 0.

    recomputed: layers of each chunk that are computed again, null where the layout says it. forward_s, backward_s: one
    micro-batch through all its chunks, with the messages that it waits for; end_s: once a step, null where the island's
    own step says it.
    """

    stage: Natural
    island: Natural
    chunks: Annotated[tuple[LayerRange, ...], Field(min_length=1)]
    recomputed: tuple[Natural, ...] | None
    embedding: bool
    head: bool
    forward_s: Seconds
    backward_s: Seconds
    end_s: Seconds | None
    peak_bytes: ByteCount


class ReplicasSection(Section):
    """Replicas that are alike: how many, their full micro-batches, and the weight of the mean gradient of each.

    last_micro_batch: sequences of a smaller one behind those, 0 where there is none.

    With the weights, which are the replica's sequences over the global batch, the weighted sum of all replicas'
    gradients is the gradient of the mean loss over the batch, as if one device had seen it all.
    """

    replicas: Count
    micro_batches: Natural
    last_micro_batch: Natural
    sequences: Natural
    gradient_weight: Annotated[float, Field(ge=0, le=1)]


class ChainSection(Section):
    """Islands that a pipeline passes in order, by number, and its replicas.

    layouts: of each of its islands, pipeline_parallel being the island's own stages. crossing_s: a message over each of
    its links; buffered: it runs beside passes, as if the link were a stage, instead of being waited for.
    sequences: of all its replicas in a step. own_step_s: its step but for the exchange with other chains, by part;
    exposed_s: what that adds.
    """

    islands: Annotated[tuple[Natural, ...], Field(min_length=1)]
    layouts: Annotated[tuple[LayoutSection, ...], Field(min_length=1)]
    stages: Annotated[tuple[MixedStageSection, ...], Field(min_length=1)]
    crossing_s: tuple[Seconds, ...]
    buffered: bool
    replicas: Annotated[tuple[ReplicasSection, ...], Field(min_length=1)]
    sequences: Count
    own_step_s: PositiveSeconds
    time_breakdown_s: dict[str, Seconds]
    exposed_s: Seconds


class ExchangeSection(Section):
    """What chains send one another once a step, over all links, in seconds alone.

    across: what each holds of the optimizer's states, copies or shards (costmodels/island_links.py).
    """

    across: Across
    gradients_s: Seconds
    parameters_s: Seconds
    sent_bytes: ByteCount


class WaySection(Section):
    """A way of training that isn't what one device would do: its numbers, what it trades, and where it is from."""

    name: Allowed
    settings: dict[str, float]
    trades: Name
    source: Name


class MixedPredictedSection(Section):
    """The step; mfu over the peaks of all devices, idle ones too. link_bytes: sent over links in a step.

    step_time_interval_s: holds what will be measured as often as interval_level says; wider_because: what no
    measurement covers.
    """

    step_time_s: PositiveSeconds
    step_time_interval_s: IntervalSection
    interval_level: Annotated[float, Field(gt=0, lt=1)]
    wider_because: tuple[str, ...]
    tokens_per_s: Annotated[float, Field(gt=0)]
    mfu: Annotated[float, Field(gt=0)]
    link_bytes: ByteCount
    usd_per_million_tokens: Annotated[float, Field(gt=0)] | None
    link_usd_per_million_tokens: Annotated[float, Field(ge=0)]


class ShapeSection(Section):
    """A shape in words (A > B: a pipeline across; A | B: replicas), its bound, and its best step if it was solved."""

    shape: Name
    bound_s: PositiveSeconds | None
    step_time_s: PositiveSeconds | None


class MixedSearchSection(Section):
    """What the search proved: no way of its space takes less than lower_bound; gap: how much more the plan takes.

    proof: optimal means that the gap is 0, of the space that planner/mixed/search.py states.
    """

    lower_bound: PositiveSeconds
    gap: Annotated[float, Field(ge=0)]
    proof: Literal["optimal", "bounded"]
    shapes: tuple[ShapeSection, ...]


class MixedSection(Section):
    """How the islands train: the shape in words, which axis crosses links, the islands, the chains, the exchange.

    idle: islands that stand idle, by number. way: how it changes the mathematics, null where it doesn't.
    """

    shape: Name
    crossing: Crossing
    islands: tuple[IslandSection, ...]
    idle: tuple[Natural, ...]
    chains: Annotated[tuple[ChainSection, ...], Field(min_length=1)]
    exchange: ExchangeSection | None
    way: WaySection | None

    @model_validator(mode="after")
    def _name_islands_that_are_there(self) -> Self:
        for number, chain in enumerate(self.chains):
            for field, named in (
                ("islands", chain.islands),
                ("stages", tuple(stage.island for stage in chain.stages)),
            ):
                for island in named:
                    if island >= len(self.islands):
                        raise field_error(
                            f"chains.{number}.{field}", f"name island {island}, of {len(self.islands)} there are"
                        )
            if len(chain.layouts) != len(chain.islands):
                raise field_error(
                    f"chains.{number}.layouts", f"are {len(chain.layouts)}, of {len(chain.islands)} islands"
                )
        return self


class MixedInputs(Section):
    """All that the plan follows from; groups are written out, with their devices. allow: the ways that may be used."""

    job: JobSection
    model: Embedded[ModelEntry]
    cluster: MixedClusterEntry
    stack: Embedded[StackEntry]
    allow: tuple[Name, ...] = ()
    digest: Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")] | None = None


def _whole(version: Any) -> Any:  # noqa: ANN401 - what a file holds
    if type(version) is not int:
        raise ValueError("must be a whole number")
    return version


class MixedPlan(Section):
    """A plan of a mixed cluster. `meshwright` is the version that made it."""

    version: Annotated[Literal[1], BeforeValidator(_whole)]
    meshwright: Name
    mixed: MixedSection
    predicted: MixedPredictedSection
    search: MixedSearchSection
    inputs: MixedInputs

    @property
    def devices(self) -> int:
        """Devices that train."""
        idle = set(self.mixed.idle)
        return sum(island.devices for number, island in enumerate(self.mixed.islands) if number not in idle)
