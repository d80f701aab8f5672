"""A step's sequences on groups of ranks, and how good that is."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from meshwright.catalog.errors import InputError
from meshwright.costmodels.layout import IntArray
from meshwright.planner.sequences.mode import Mode
from meshwright.planner.sequences.options import whole

# Gaps below are sums rounded.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankGroup:
    """Ranks that share sequences.

    first_rank, degree: its ranks are so many from the first on. sequences: indices into the batch, ascending.
    """

    first_rank: int
    degree: int
    sequences: IntArray
    tokens: int
    time_s: float

    @property
    def ranks(self) -> IntArray:
        """Numbers of its ranks."""
        return np.arange(self.first_rank, self.first_rank + self.degree)


MicroBatch = tuple[RankGroup, ...]
"""Groups that work at once, of different ranks; ranks of none of them go on with the next micro-batch."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scattered:
    """The split of a batch.

    ranks: in all. devices_a_rank: what holds one copy of the model (tensor_parallel).
    step_time_s: of all micro-batches, without what a step has once whatever its split (optimizer, synchronisation).
    lower_bound_s: what no split's is below. homogeneous_step_time_s: of the best split into groups of one size.
    seconds: how long it took to find.
    """

    micro_batches: tuple[MicroBatch, ...]
    ranks: int
    devices_a_rank: int
    mode: Mode
    step_time_s: float
    lower_bound_s: float
    homogeneous_step_time_s: float
    certified: bool = False
    seconds: float = 0.0

    @property
    def gap(self) -> float:
        """By how much the step may be longer than the shortest possible, relative."""
        gap = self.step_time_s / self.lower_bound_s - 1 if self.lower_bound_s else 0.0
        return gap if gap > ROUNDING else 0.0

    @property
    def speedup(self) -> float:
        """How many times as fast as the best split into groups of one size."""
        return self.homogeneous_step_time_s / self.step_time_s if self.step_time_s else 1.0

    def of_rank(self, rank: int) -> tuple[RankGroup, ...]:
        """Give a rank's groups, in turn. Raises InputError where there is no such rank."""
        return tuple(group for group in self.turns_of_rank(rank) if group is not None)

    def turns_of_rank(self, rank: int) -> tuple[RankGroup | None, ...]:
        """Give a rank's group in each micro-batch, None where it has none: as many of every rank.

        Raises InputError where there is no such rank.
        """
        if not 0 <= whole(rank, path="rank") < self.ranks:
            raise InputError(f"there is no rank {rank}: they are 0 to {self.ranks - 1}", path="rank")
        return tuple(
            next((group for group in groups if group.first_rank <= rank < group.first_rank + group.degree), None)
            for groups in self.micro_batches
        )

    def document(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {
            "mode": str(self.mode),
            "micro_batches": [
                {
                    "groups": [
                        {
                            "ranks": group.ranks.tolist(),
                            "sequences": group.sequences.tolist(),
                            "tokens": group.tokens,
                            "time_s": group.time_s,
                        }
                        for group in groups
                    ]
                }
                for groups in self.micro_batches
            ],
            "step_time_s": self.step_time_s,
            "lower_bound_s": self.lower_bound_s,
            "certified": self.certified,
            "gap": self.gap,
            "homogeneous_step_time_s": self.homogeneous_step_time_s,
            "seconds": self.seconds,
        }
