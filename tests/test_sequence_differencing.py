"""Balance by differencing: by hand, against every partition, and as what a split into single ranks starts from."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.planner.sequences import Mode, SequenceScatterer, uniform_costs
from meshwright.planner.sequences.batch import batch_of
from meshwright.planner.sequences.differencing import differenced, differenced_split
from meshwright.planner.sequences.split import joined, lockstep_s


def test_two_groups_by_hand() -> None:
    # 8 7 6 5 4 -> 6 5 4 1 -> 4 1 1 -> 3 1 -> 2: Karmarkar and Karp's example ends 2 apart, 16 and 14.
    loads = np.array([8.0, 7.0, 6.0, 5.0, 4.0])
    assert sorted(np.bincount(differenced(loads, 2), loads)) == [14.0, 16.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.integers(1, 3))
def test_groups_are_partitions_within_bounds(lengths: list[int], groups: int) -> None:
    loads = np.array(sorted(lengths, reverse=True), dtype=float)
    found = differenced(loads, groups)
    assert found.shape == loads.shape
    assert ((found >= 0) & (found < groups)).all()
    longest = np.bincount(found, loads, groups).max()
    best = min(max(np.bincount(np.array(way), loads, groups)) for way in product(range(groups), repeat=len(loads)))
    # Proven: 7/6 for two groups (Fischetti and Martello 1987), 4/3 - 1/(3 m) for m of them (Michiels et al. 2003).
    assert best <= longest <= best * (7 / 6 if groups == 2 else 4 / 3 - 1 / (3 * groups)) + 1e-9


def test_single_ranks_are_balanced_closely() -> None:
    costs = uniform_costs(
        ranks=32, node_ranks=8, tokens_a_rank=100_000, square_s=1e-9, token_s=1e-4, fixed_s=0.01,
        degrees=np.array([1]),
    )  # fmt: skip
    lengths = np.exp(np.random.default_rng(3).normal(6.5, 0.7, 700)).astype(int) + 1
    batch = batch_of(costs, np.sort(lengths)[::-1])
    mean_s = batch.load_s[0].sum() / 32 + 0.01
    for mode in Mode:
        assert mean_s <= SequenceScatterer(costs=costs, mode=mode)(lengths).step_time_s <= mean_s * 1.0005
    tight = uniform_costs(
        ranks=32, node_ranks=8, tokens_a_rank=int(lengths.sum()) // 32, square_s=1e-9, token_s=1e-4,
        degrees=np.array([1]),
    )  # fmt: skip
    assert differenced_split(tight, batch_of(tight, np.sort(lengths)[::-1]), 1) is None


def test_parts_of_a_batch_are_joined_by_index() -> None:
    costs = uniform_costs(ranks=2, node_ranks=2, tokens_a_rank=100, square_s=0.0, token_s=1.0, degrees=np.array([1]))
    first, second = (differenced_split(costs, batch_of(costs, lengths), 1) for lengths in ([9, 4], [5, 3]))
    assert first is not None
    assert second is not None
    whole = joined([(first, np.array([0, 2])), (second, np.array([1, 3]))])
    assert whole.micro_batch[whole.group].tolist() == [0, 1, 0, 1]
    assert lockstep_s(whole, whole.seconds(costs, batch_of(costs, [9, 5, 4, 3]))) == pytest.approx(9.0 + 5.0)
