"""The choices that make a layout, in the order in which they are made.

    mesh        tensor x context x pipeline x data = devices, every ordered factorisation
    context     each method, where context > 1
    sequence    sequence parallelism off; or on, where tensor > 1
    expert      each divisor of the number of experts x expert-tensor of 1; or of tensor, where tensor > 1
    order       the pipeline outermost; or data, where that brings stages nearer to one another (orders.py)
    batch       micro-batch: each divisor of the global batch that is at most 32 or a power of two
    zero        ZeRO stage 0; and 1 to 3, where data x context > 1; and stage 3 by each other partition of the stack,
                and its other hybrid stages, where in some order some but not all ranks that hold the same parameters
                are in one node
    pipeline    1f1b; where pipeline > 1 also gpipe, zb-h1, zb-2p, dualpipe, interleaved with each of VIRTUAL_PIPELINES
                chunks, and v-half, v-min, zbv and dualpipev with two
    vocabulary  the first and the last stage have embedding and head; or, where pipeline > 1, all stages a share
    recompute   none, selective, full; or full of as few layers of each chunk as memory asks for, of those of several

A choice that would change nothing (such as sequence parallelism on one device) is not offered, so it is no candidate.
Mesh to batch make a branch, ZeRO a twig of it, and the rest its leaves, the layouts (bound.py says why). What is
offered depends on the mesh alone: that is how what is pruned early is still counted for every candidate below it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from meshwright.catalog.schedule import Schedule
from meshwright.catalog.stack_entry import Partition
from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import AXIS_ORDERS, CONTEXT_METHODS, RECOMPUTES, SCHEDULES, BoolArray, IntArray
from meshwright.costmodels.recompute import FULL
from meshwright.costmodels.stages import FOLDED
from meshwright.costmodels.transformer import Experts
from meshwright.planner.layout.context import CONTEXT_RULES
from meshwright.planner.layout.orders import ORDER_RULES, has_two_orders
from meshwright.planner.layout.partitions import PARTITION_RULES, PARTITIONS, is_partitioned
from meshwright.planner.layout.rules import (
    BATCH_RULES,
    EXPERT_RULES,
    MESH_RULES,
    PIPELINE_RULES,
    RECOMPUTE_RULES,
    SEQUENCE_RULES,
    VOCABULARY_RULES,
    Columns,
    Rule,
)

PLAIN = (
    Schedule.ONE_F_ONE_B,
    Schedule.GPIPE,
    Schedule.ZERO_BUBBLE_H1,
    Schedule.ZERO_BUBBLE_2P,
    Schedule.DUAL_PIPE,
)
VIRTUAL_PIPELINES = (2, 3, 4, 5, 6, 7, 8, 12)
LARGEST_ODD_MICRO_BATCH = 32
ZERO_STAGES = (0, 1, 2, 3)
# In the place of recompute_layers, of which no more than one number is worth looking at: the least that fits.
AS_FEW_AS_FIT = -1


# All that makes a layout legal, in the order in which it is checked.
RULES = (
    *MESH_RULES,
    *CONTEXT_RULES,
    *SEQUENCE_RULES,
    *EXPERT_RULES,
    *ORDER_RULES,
    *BATCH_RULES,
    *PARTITION_RULES,
    *PIPELINE_RULES,
    *VOCABULARY_RULES,
    *RECOMPUTE_RULES,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One choice.

    options: columns that the choice adds, each an array of shape [options].
    axes, single: where all these degrees are 1, only the first `single` options are offered; no axes: always all.
    special, common: where `special` doesn't hold, only the first `common` options are offered.
    rules: what is checked once the choice is made.
    """

    options: Mapping[str, IntArray]
    axes: tuple[str, ...] = ()
    single: int = 1
    special: Callable[[Columns], BoolArray] | None = None
    common: int = 1
    rules: tuple[Rule, ...] = ()

    @property
    def size(self) -> int:
        """Number of options."""
        return len(next(iter(self.options.values())))

    def offered(self, columns: Columns) -> IntArray:
        """Give how many options each row has, shape [rows]; they are the first so many."""
        rows = len(columns["tensor_parallel"])
        alone = np.full(rows, bool(self.axes))
        for axis in self.axes:
            alone &= columns[axis] == 1
        offered = np.full(rows, self.size)
        if self.special is not None:
            offered = np.where(self.special(columns), offered, self.common)
        return np.where(alone, self.single, offered)


def meshes(devices: int) -> dict[str, IntArray]:
    """Give every (tensor, context, pipeline, data) of which the product is `devices`, as columns."""
    divisors = divisors_of(devices)
    first, second = np.nonzero(devices % np.outer(divisors, divisors) == 0)
    tensor, context = divisors[first], divisors[second]
    rest = devices // (tensor * context)
    row, column = np.nonzero(rest[:, None] % divisors[None, :] == 0)
    return {
        "tensor_parallel": tensor[row],
        "context_parallel": context[row],
        "pipeline_parallel": divisors[column],
        "data_parallel": rest[row] // divisors[column],
    }


def divisors_of(number: int) -> IntArray:
    """Give the divisors of a positive number, ascending."""
    low = [candidate for candidate in range(1, int(number**0.5) + 1) if number % candidate == 0]
    return np.array(sorted({*low, *(number // divisor for divisor in low)}), dtype=np.int64)


def branch_choices(job: Job) -> tuple[Choice, ...]:
    """Give the choices that make branches of meshes, in order."""
    return (
        Choice(
            options={"context_method": np.arange(len(CONTEXT_METHODS))}, axes=("context_parallel",), rules=CONTEXT_RULES
        ),
        Choice(options={"sequence_parallel": _column((0, 1))}, axes=("tensor_parallel",), rules=SEQUENCE_RULES),
        _expert_choice(job),
        Choice(
            options={"axis_order": np.arange(len(AXIS_ORDERS))},
            special=partial(has_two_orders, job.cluster),
            rules=ORDER_RULES,
        ),
        Choice(options={"micro_batch": _micro_batches(job.global_batch)}, rules=BATCH_RULES),
    )


def twig_choices(job: Job) -> tuple[Choice, ...]:
    """Give the choice that makes twigs of branches; a partition may be one of another order only."""
    others = [(max(ZERO_STAGES), kind) for kind in job.stack.partitions if kind is not Partition.UNIFORM]
    others += [(stage, Partition.HYBRID) for stage in job.stack.hybrid_stages]
    uniform = (PARTITIONS.index(Partition.UNIFORM) for _ in ZERO_STAGES)
    return (
        Choice(
            options={
                "zero_stage": _column((*ZERO_STAGES, *(stage for stage, _ in others))),
                "partition": _column((*uniform, *(PARTITIONS.index(kind) for _, kind in others))),
            },
            axes=("data_parallel", "context_parallel"),
            special=partial(is_partitioned, job.cluster),
            common=len(ZERO_STAGES),
            rules=PARTITION_RULES,
        ),
    )


def leaf_choices() -> tuple[Choice, ...]:
    """Give the choices that make leaves of twigs, in order."""
    return (
        _pipeline_choice(),
        Choice(options={"vocabulary_parallel": _column((0, 1))}, axes=("pipeline_parallel",), rules=VOCABULARY_RULES),
        Choice(
            options={
                "recompute": np.array([*range(len(RECOMPUTES)), FULL]),
                "recompute_layers": _column((*(0 for _ in RECOMPUTES), AS_FEW_AS_FIT)),
            },
            rules=RECOMPUTE_RULES,
        ),
    )


def _column(values: tuple[int, ...]) -> IntArray:
    return np.array(values, dtype=np.int64)


def _pipeline_choice() -> Choice:
    schedules = (*PLAIN, *(Schedule.INTERLEAVED for _ in VIRTUAL_PIPELINES), *FOLDED)
    return Choice(
        options={
            "schedule": _column(tuple(SCHEDULES.index(schedule) for schedule in schedules)),
            "virtual_pipeline": _column((1,) * len(PLAIN) + VIRTUAL_PIPELINES + (2,) * len(FOLDED)),
        },
        axes=("pipeline_parallel",),
        rules=PIPELINE_RULES,
    )


def _expert_choice(job: Job) -> Choice:
    counts = {kind.mlp.experts for kind in job.model.layer_kinds if isinstance(kind.mlp, Experts)}
    if not counts:
        return Choice(options={"expert_parallel": _column((1,)), "experts_over_tensor": _column((0,))})
    degrees = divisors_of(int(np.gcd.reduce(sorted(counts))))
    return Choice(
        options={
            "expert_parallel": np.tile(degrees, 2),
            "experts_over_tensor": np.repeat(_column((0, 1)), len(degrees)),
        },
        axes=("tensor_parallel",),
        single=len(degrees),
        rules=EXPERT_RULES,
    )


def _micro_batches(global_batch: int) -> IntArray:
    small = range(1, min(LARGEST_ODD_MICRO_BATCH, global_batch) + 1)
    powers = (2**exponent for exponent in range(global_batch.bit_length()))
    return _column(tuple(sorted({size for size in (*small, *powers) if global_batch % size == 0})))
