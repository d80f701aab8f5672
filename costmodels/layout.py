"""A hybrid parallel layout, and a table of many."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from meshwright.catalog.axis_order import AxisOrder
from meshwright.catalog.context_method import ContextMethod
from meshwright.catalog.schedule import Schedule

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


class Recompute(StrEnum):
    """What the backward pass computes again: nothing, the attention core (scores to context), or whole layers."""

    NONE = "none"
    SELECTIVE = "selective"
    FULL = "full"


RECOMPUTES = tuple(Recompute)
SCHEDULES = tuple(Schedule)
CONTEXT_METHODS = tuple(ContextMethod)
AXIS_ORDERS = tuple(AxisOrder)
# What each kind of shard is where a layout doesn't say otherwise.
WIDER_SHARDS = {"gradient_shard": "zero_shard", "parameter_shard": "zero_shard", "backward_shard": "parameter_shard"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way to train. Degrees multiply to the world size, expert degrees divide what they borrow from.

    tensor_parallel: devices that share each matrix; sequence_parallel: they also share the tokens between matrices.
    context_parallel: devices that share each sequence. ulysses_parallel: how many neighbours among them exchange heads
    where context_method is the hybrid one, else 1.
    pipeline_parallel: stages; virtual_pipeline: model chunks a stage (under DualPipe, which has each twice, 1).
    split: layers of each chunk in model order; empty where they are cut as evenly as can be.
    vocabulary_parallel: stages share embedding and head instead of the first and the last having one each.
    data_parallel: replicas that see different sequences (without context parallelism).
    axis_order: how ranks are numbered through the axes.
    expert_parallel: devices that share a layer's experts, out of data x context x tensor parallelism.
    expert_tensor_parallel: devices that share each expert's matrices.
    zero_stage: 0 nothing, 1 optimizer states, 2 also gradients, 3 also parameters sharded over zero_shard devices.
    zero_shard: size of the group that ZeRO shards over, at most data_parallel x context_parallel; where it's fewer,
    as many groups hold a copy each (hybrid sharding).
    gradient_shard, parameter_shard: devices over which gradients (stages 2 and 3) and parameters (stage 3) are sharded
    within a step, divisors of zero_shard, where they aren't that: over fewer, the rest is exchanged once a step
    instead of once a micro-batch. 1 holds them whole.
    backward_shard: devices over which stage 3 keeps a layer's parameters from its forward to its backward pass, a
    divisor of parameter_shard, where it isn't that (the secondary partition of ZeRO++).
    recompute_layers: how many layers of each model chunk full recomputation is of; None where it is of all.
    recompute_split: of each chunk in model order, how many layers `recompute` is of, from its first one on, counting
    MTP modules behind the last layer; the others keep everything. Empty where recompute_layers says it, or it's all.
    micro_batch: sequences of one forward pass of one replica.
    """

    tensor_parallel: int = 1
    sequence_parallel: bool = False
    context_parallel: int = 1
    context_method: ContextMethod = ContextMethod.RING
    ulysses_parallel: int = 1
    pipeline_parallel: int = 1
    virtual_pipeline: int = 1
    split: tuple[int, ...] = ()
    vocabulary_parallel: bool = False
    data_parallel: int = 1
    axis_order: AxisOrder = AxisOrder.PIPELINE_OUTERMOST
    expert_parallel: int = 1
    expert_tensor_parallel: int = 1
    zero_stage: int = 0
    zero_shard: int = 1
    gradient_shard: int | None = None
    parameter_shard: int | None = None
    backward_shard: int | None = None
    recompute: Recompute = Recompute.NONE
    recompute_layers: int | None = None
    recompute_split: tuple[int, ...] = ()
    schedule: Schedule = Schedule.ONE_F_ONE_B
    micro_batch: int = 1

    @property
    def shards(self) -> dict[str, int]:
        """The devices over which gradients and parameters are sharded: as said, or those of the wider shard."""
        sizes: dict[str, int] = {}
        for name, wider in WIDER_SHARDS.items():
            sizes[name] = getattr(self, name) or sizes.get(wider, self.zero_shard)
        return sizes

    @property
    def world_size(self) -> int:
        """Devices in all."""
        return self.tensor_parallel * self.context_parallel * self.pipeline_parallel * self.data_parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What a layout says of its chunks in model order: their layers, and how many of those are recomputed.

    Empty where they are cut evenly, and where all are recomputed or none.
    """

    sizes: tuple[int, ...] = ()
    recomputed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutTable:
    """Many layouts as columns, each an integer array of shape [layouts].

    Closed sets are stored as their index, all shards as numbers, and recompute_layers of None as 0. splits: the
    distinct ways to split layers, of which the first says nothing; `split` is the index of each layout's.
    """

    tensor_parallel: IntArray
    sequence_parallel: IntArray
    context_parallel: IntArray
    context_method: IntArray
    ulysses_parallel: IntArray
    pipeline_parallel: IntArray
    virtual_pipeline: IntArray
    split: IntArray
    vocabulary_parallel: IntArray
    data_parallel: IntArray
    axis_order: IntArray
    expert_parallel: IntArray
    expert_tensor_parallel: IntArray
    zero_stage: IntArray
    zero_shard: IntArray
    gradient_shard: IntArray
    parameter_shard: IntArray
    backward_shard: IntArray
    recompute: IntArray
    recompute_layers: IntArray
    schedule: IntArray
    micro_batch: IntArray
    splits: tuple[Split, ...] = (Split(),)

    def __len__(self) -> int:
        return len(self.tensor_parallel)

    @classmethod
    def of(cls, layouts: Iterable[Layout]) -> Self:
        """Make the table of some layouts."""
        rows = list(layouts)
        own = [Split(sizes=row.split, recomputed=row.recompute_split) for row in rows]
        splits = {split: number for number, split in enumerate(dict.fromkeys((Split(), *own)))}
        given = [_given(row) | {"split": splits[split]} for row, split in zip(rows, own, strict=True)]
        columns = {name: np.array([row[name] for row in given], dtype=np.int64) for name in COLUMNS}
        return cls(**columns, splits=tuple(splits))

    def take(self, rows: IntArray | BoolArray) -> Self:
        """Give the table of some rows: an index array, or a mask of shape [layouts]."""
        return type(self)(**{name: getattr(self, name)[rows] for name in COLUMNS}, splits=self.splits)

    @classmethod
    def joined(cls, tables: Sequence[Self]) -> Self:
        """Give the rows of several tables, one after another."""
        splits = tuple(dict.fromkeys(split for table in tables for split in table.splits))
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in COLUMNS}
        numbers = [np.array([splits.index(split) for split in table.splits])[table.split] for table in tables]
        return cls(**columns | {"split": np.concatenate(numbers)}, splits=splits)

    def row(self, index: int) -> Layout:
        """Give one layout."""
        values: dict[str, Any] = {name: int(getattr(self, name)[index]) for name in COLUMNS}
        for name in ("sequence_parallel", "vocabulary_parallel"):
            values[name] = bool(values[name])
        split = self.splits[values.pop("split")]
        values |= {"split": split.sizes, "recompute_split": split.recomputed}
        values["context_method"] = CONTEXT_METHODS[values["context_method"]]
        values["axis_order"] = AXIS_ORDERS[values["axis_order"]]
        values["recompute"] = RECOMPUTES[values["recompute"]]
        values["recompute_layers"] = values["recompute_layers"] or None
        values["schedule"] = SCHEDULES[values["schedule"]]
        usual = [name for name, wider in WIDER_SHARDS.items() if values[name] == values[wider]]
        return Layout(**values | dict.fromkeys(usual))


COLUMNS = tuple(column.name for column in fields(LayoutTable) if column.name != "splits")


def numbered(codes: IntArray) -> tuple[IntArray, IntArray]:
    """Give the distinct values of some natural numbers, ascending, and for each number which of them it is.

    As numpy's unique, but without sorting where the numbers are few enough to be looked up.
    """
    largest = int(codes.max(initial=0))
    if largest > max(4 * len(codes), 2**20):
        values, index = np.unique(codes, return_inverse=True)
        return values, index
    seen = np.zeros(largest + 1, dtype=np.int64)
    seen[codes] = 1
    values = np.flatnonzero(seen)
    seen[values] = np.arange(len(values))
    return values, seen[codes]


def _given(layout: Layout) -> dict[str, int]:
    """Give each column but `split` of a layout as it is stored."""
    values = {name: getattr(layout, name) for name in COLUMNS if name != "split"} | layout.shards
    return {name: _code(value) for name, value in values.items()}


def _code(value: int | StrEnum | None) -> int:
    if value is None:
        return 0
    for closed_set in (RECOMPUTES, SCHEDULES, CONTEXT_METHODS, AXIS_ORDERS):
        if value in closed_set:
            return closed_set.index(value)
    return int(value)
