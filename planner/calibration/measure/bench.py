"""What is timed, and what times it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from meshwright.catalog.precision import Precision
from meshwright.planner.calibration.timing import Collective


class Product(StrEnum):
    """The three products of a linear layer: which operands they read across their rows differs."""

    FORWARD = "forward"
    DATA_GRADIENT = "data gradient"
    WEIGHT_GRADIENT = "weight gradient"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProduct:
    """One product of the layer [tokens, inputs] x [inputs, outputs]."""

    product: Product
    tokens: int
    inputs: int
    outputs: int
    precision: Precision

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Rows, columns and inner size."""
        return {
            Product.FORWARD: (self.tokens, self.outputs, self.inputs),
            Product.DATA_GRADIENT: (self.tokens, self.inputs, self.outputs),
            Product.WEIGHT_GRADIENT: (self.outputs, self.inputs, self.tokens),
        }[self.product]

    @property
    def flop(self) -> float:
        """Operations."""
        return 2.0 * self.tokens * self.inputs * self.outputs

    @property
    def elements(self) -> int:
        """Elements of both operands and the result."""
        return self.tokens * self.inputs + self.inputs * self.outputs + self.tokens * self.outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """Causal attention of `batch` sequences."""

    batch: int
    heads: int
    head_dim: int
    sequence_length: int
    precision: Precision

    @property
    def flop(self) -> float:
        """Operations of the forward pass: two products of half a square."""
        return 2.0 * self.batch * self.heads * self.head_dim * self.sequence_length**2

    @property
    def elements(self) -> int:
        """Elements of queries, keys, values, output and all their gradients."""
        return 8 * self.batch * self.heads * self.head_dim * self.sequence_length


class Bench(Protocol):
    """A machine with something to time; all times are in seconds, of one launch."""

    @property
    def memory_bytes(self) -> int:
        """Memory of one device that can be used."""
        ...

    @property
    def devices(self) -> int:
        """How many devices the machine has."""
        ...

    def product_s(self, product: LayerProduct) -> float:
        """Time a matrix product."""
        ...

    def attention_s(self, shape: AttentionShape) -> tuple[float, float]:
        """Time fused attention, forward and backward."""
        ...

    def copy_s(self, copied_bytes: int) -> float:
        """Time a copy inside a device's memory, which reads and writes as much."""
        ...

    def collectives_s(self, sizes: tuple[tuple[Collective, int], ...], *, ranks: int) -> tuple[float, ...]:
        """Time collectives of that many bytes each (`CollectiveTiming.whole_bytes`) over some of the devices."""
        ...
