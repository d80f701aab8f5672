"""What a search of mixed clusters answers."""

from dataclasses import dataclass

from meshwright.costmodels.island_links import Across, Exchange
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import Layout
from meshwright.planner.mixed.chain_cut import ChainCut
from meshwright.planner.mixed.shapes import Chain, Shape
from meshwright.planner.mixed.ways.way import Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A chain with its replicas: the layout on each of its islands, and the sequences that they train on in a step.

    own_s: its step but for the exchange; tail_s: of that, the last micro-batch where it is smaller than the others.
    exposed_s: what of the exchange it doesn't hide. job: that of its first island, with as many sequences as its full
    micro-batches hold. cut: how layers are dealt where the chain is of several islands.
    """

    chain: Chain
    layouts: tuple[Layout, ...]
    sequences: int
    own_s: float
    tail_s: float
    exposed_s: float
    job: Job
    cut: ChainCut | None

    @property
    def replicas(self) -> int:
        """Replicas of the model."""
        return self.layouts[0].data_parallel

    @property
    def shares(self) -> tuple[int, ...]:
        """Sequences of each replica: as equal as can be, in whole rounds of the stages where they interleave."""
        layout = self.layouts[0]
        unit = layout.pipeline_parallel * layout.micro_batch if layout.virtual_pipeline > 1 else 1
        whole, more = divmod(self.sequences // unit, self.replicas)
        return tuple(unit * (whole + (replica < more)) for replica in range(self.replicas))


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """The best way found of a shape, or of all; way: how it changes the mathematics, if it does."""

    shape: Shape
    across: Across | None
    exchange: Exchange
    way: Way | None
    parties: tuple[Party, ...]
    step_time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeResult:
    """What is known of one shape: its bound, and its best step where it was solved and one was found."""

    shape: Shape
    words: str
    bound_s: float
    step_time_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedResult:
    """The best way found, a bound of all, and what is known of each shape, best first."""

    best: Solution
    bound_s: float
    shapes: tuple[ShapeResult, ...]
