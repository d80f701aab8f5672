"""Moves, swaps and other degrees: by hand, and that they never slow a split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.planner.sequences import Mode, uniform_costs
from meshwright.planner.sequences.batch import batch_of
from meshwright.planner.sequences.homogeneous import homogeneous_split
from meshwright.planner.sequences.polishing import polished
from meshwright.planner.sequences.split import Split, step_s

COSTS = uniform_costs(ranks=4, node_ranks=4, tokens_a_rank=100, square_s=0.0, token_s=1.0, fixed_s=5.0)


def split_of(groups: list[tuple[int, int, int]], group: list[int]) -> Split:
    """Make one of (index of the degree, first rank, micro-batch) and the group of each sequence."""
    degree, first_rank, turn = np.array(groups).T
    return Split(degree=degree, first_rank=first_rank, micro_batch=turn, group=np.array(group))


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    ("lengths", "groups", "group", "before_s", "after_s"),
    [
        # 70 + 20 beside 40 beside 60s: 20 moves, then nothing is above 70.
        ([70, 60, 60, 40, 20], [(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 3, 0)], [0, 1, 2, 3, 0], 95, 75),
        # 50 + 40 beside 40 + 30, which memory lets be no more than 80 and 80: 50 and 40 change places.
        ([50, 50, 40, 40, 40, 40, 30, 30], [(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 3, 0)],
         [0, 1, 0, 1, 2, 3, 2, 3], 95, 85),
        # One sequence on one of four ranks: as two ranks it takes half as long, as four a quarter.
        ([80], [(0, 0, 0)], [0], 85, 25),
        # A rank without a group is given one.
        ([50, 40, 30, 30], [(0, 0, 0), (0, 1, 0), (0, 2, 0)], [0, 1, 2, 2], 65, 55),
    ],
)  # fmt: skip
def test_by_hand(
    mode: Mode,
    lengths: list[int],
    groups: list[tuple[int, int, int]],
    group: list[int],
    before_s: float,
    after_s: float,
) -> None:
    batch, split = batch_of(COSTS, lengths), split_of(groups, group)
    assert step_s(COSTS, batch, split, mode) == pytest.approx(before_s)
    assert step_s(COSTS, batch, polished(COSTS, batch, split, mode), mode) == pytest.approx(after_s)


def test_other_micro_batches_have_room() -> None:
    # 60 + 30 in the first micro-batch; in the second, of 80, a rank has 40: 30 goes there, to 70.
    batch = batch_of(COSTS, [80, 60, 60, 60, 60, 40, 30])
    split = split_of(
        [(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 3, 0), (0, 0, 1), (0, 1, 1)],
        [4, 0, 1, 2, 3, 5, 0],
    )
    assert step_s(COSTS, batch, split, Mode.LOCKSTEP) == pytest.approx(95 + 85)
    assert step_s(COSTS, batch, polished(COSTS, batch, split, Mode.LOCKSTEP), Mode.LOCKSTEP) < 65 + 85 + 1e-6


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 700), min_size=1, max_size=40),
    mode=st.sampled_from(Mode),
    degree=st.integers(0, 3),
)
def test_a_split_is_never_slower_and_still_one(lengths: list[int], mode: Mode, degree: int) -> None:
    costs = uniform_costs(
        ranks=8, node_ranks=4, tokens_a_rank=700, square_s=1e-6, token_s=1e-3, fixed_s=0.02, inside_s=1e-4,
        outside_s=4e-4,
    )  # fmt: skip
    batch = batch_of(costs, lengths)
    split = homogeneous_split(costs, batch, degree, mode)
    found = polished(costs, batch, split, mode)
    assert step_s(costs, batch, found, mode) <= step_s(costs, batch, split, mode) * (1 + 1e-9)
    assert found.group.shape == batch.tokens.shape
    tokens = np.bincount(found.group, batch.tokens, len(found.degree))
    assert (tokens > 0).all()
    assert (tokens <= costs.most_tokens[found.degree]).all()
    size = costs.degrees[found.degree]
    assert (found.first_rank % size == 0).all()
    for turn in range(int(found.micro_batch.max()) + 1):
        mine = found.micro_batch == turn
        ranks = np.concatenate([np.arange(a, a + b) for a, b in zip(found.first_rank[mine], size[mine], strict=True)])
        assert len(ranks) == len(set(ranks.tolist()))
        assert ((ranks >= 0) & (ranks < 8)).all()
