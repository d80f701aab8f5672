"""Groups of a step, on ranks and in turn, and how long they take."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from meshwright.costmodels.layout import FloatArray, IntArray
from meshwright.planner.sequences.batch import Batch
from meshwright.planner.sequences.group_costs import GroupCosts
from meshwright.planner.sequences.mode import Mode


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Groups, which sequences are whose, and when and where they work.

    degree: the index of each group's degree [groups]. first_rank: from which on its ranks are [groups].
    micro_batch: its turn [groups]. group: of each sequence [sequences].
    """

    degree: IntArray
    first_rank: IntArray
    micro_batch: IntArray
    group: IntArray

    def seconds(self, costs: GroupCosts, batch: Batch) -> FloatArray:
        """Give what each group takes [groups]."""
        return costs.sums_s(self.degree, self.group, batch.work_s, batch.tokens)

    def ordered(self) -> Self:
        """Give the same with groups in turn, and in a turn by ranks."""
        order = np.lexsort((self.first_rank, self.micro_batch))
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return replace(
            self,
            degree=self.degree[order],
            first_rank=self.first_rank[order],
            micro_batch=self.micro_batch[order],
            group=back[self.group],
        )


def joined(splits: Sequence[tuple[Split, IntArray]]) -> Split:
    """Give the split of several parts of a batch one after another, each in its own turn, with its sequences."""
    groups = np.cumsum([0, *(len(split.degree) for split, _ in splits)])
    turns = np.cumsum([0, *(int(split.micro_batch.max()) + 1 for split, _ in splits)])
    group = np.empty(sum(len(index) for _, index in splits), dtype=np.int64)
    for at, (split, index) in enumerate(splits):
        group[index] = split.group + groups[at]
    return Split(
        degree=np.concatenate([split.degree for split, _ in splits]),
        first_rank=np.concatenate([split.first_rank for split, _ in splits]),
        micro_batch=np.concatenate([split.micro_batch + turns[at] for at, (split, _) in enumerate(splits)]),
        group=group,
    )


def lockstep_s(split: Split, group_s: FloatArray) -> float:
    """Give the seconds of a step with a barrier after each micro-batch."""
    longest = np.zeros(int(split.micro_batch.max()) + 1)
    np.maximum.at(longest, split.micro_batch, group_s)
    return float(longest.sum())


def free_s(costs: GroupCosts, split: Split, group_s: FloatArray) -> float:
    """Give the seconds of a step without barriers: a group starts when all its ranks are done with what is before."""
    done_s = np.zeros(costs.ranks)
    size = costs.degrees[split.degree]
    for turn in range(int(split.micro_batch.max()) + 1):
        groups = np.flatnonzero(split.micro_batch == turn)
        if not len(groups):
            continue
        sizes = size[groups]
        starts = np.cumsum(sizes) - sizes
        ranks = np.repeat(split.first_rank[groups] - starts, sizes) + np.arange(int(sizes.sum()))
        end_s = np.maximum.reduceat(done_s[ranks], starts) + group_s[groups]
        done_s[ranks] = np.repeat(end_s, sizes)
    return float(done_s.max())


def placed(costs: GroupCosts, degree: IntArray, group: IntArray, micro_batch: IntArray) -> Split:
    """Put groups on ranks: in each micro-batch the largest first, which aligns powers of two to nodes."""
    size = costs.degrees[degree]
    order = np.lexsort((-size, micro_batch))
    ends = np.cumsum(size[order])
    turn = micro_batch[order]
    first_of_turn = np.searchsorted(turn, turn)
    before = np.concatenate([[0], ends])[first_of_turn]
    first_rank = np.empty(len(degree), dtype=np.int64)
    first_rank[order] = ends - size[order] - before
    return Split(degree=degree, first_rank=first_rank, micro_batch=micro_batch, group=group)


def step_s(costs: GroupCosts, batch: Batch, split: Split, mode: Mode) -> float:
    """Give the seconds of a step."""
    group_s = split.seconds(costs, batch)
    return lockstep_s(split, group_s) if mode is Mode.LOCKSTEP else free_s(costs, split, group_s)
