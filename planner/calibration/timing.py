"""Timed pieces of work, whoever timed them: a log of a user, a table, or this machine."""

from dataclasses import dataclass
from enum import StrEnum

from meshwright.catalog.precision import Precision


class Collective(StrEnum):
    """The collectives that training uses; send_recv: each rank sends to the next while the one before sends to it."""

    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "all_to_all"
    SEND_RECV = "send_recv"


class Pass(StrEnum):
    """Which way through a layer."""

    FORWARD = "forward"
    BACKWARD = "backward"


@dataclass(frozen=True, slots=True, kw_only=True)
class MatmulTiming:
    """A product [rows, inner] x [inner, columns], `count` of them in one launch. `place`: where it was read."""

    rows: int
    columns: int
    inner: int
    count: int = 1
    precision: Precision
    time_s: float
    place: str

    @property
    def flop(self) -> float:
        """Operations of all pairs."""
        return 2.0 * self.count * self.rows * self.columns * self.inner


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionTiming:
    """Fused causal attention of `batch` sequences, one pass through it."""

    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    sequence_length: int
    precision: Precision
    through: Pass
    time_s: float
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyTiming:
    """A copy inside the device's memory; `moved_bytes` counts what is read and what is written."""

    moved_bytes: int
    time_s: float
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveTiming:
    """One collective over `ranks` devices, evenly in `nodes` machines.

    whole_bytes: the reduced buffer of an all-reduce, what an all-gather gathers, what a reduce-scatter starts from,
        what one rank of an all-to-all sends in all (its own share included), the message of send_recv.
    """

    collective: Collective
    ranks: int
    nodes: int
    whole_bytes: float
    time_s: float
    place: str


Timing = MatmulTiming | AttentionTiming | CopyTiming | CollectiveTiming
