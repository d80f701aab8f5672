"""A data loader driven by splits: a sampler in PyTorch's manner, 100 steps, on every rank."""

import sys
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from sequence_lengths import drawn

from meshwright.costmodels.layout import IntArray
from meshwright.planner import SequenceScatterer

STEPS, SEQUENCES, RANKS = 100, 64, 8
STEPS_OF_ALL_RANKS = 4


class ScatterSampler:
    """Gives a rank the sequences of its groups, a list of indices each, step after step."""

    def __init__(self, lengths: IntArray, *, rank: int, scatterer: SequenceScatterer) -> None:
        self.lengths = lengths
        self.rank = rank
        self.scatterer = scatterer
        self.seconds: list[float] = []

    def __iter__(self) -> Iterator[list[int]]:
        shuffled = np.random.default_rng(7).permutation(len(self.lengths))
        for start in range(0, len(shuffled), SEQUENCES):
            step = shuffled[start : start + SEQUENCES]
            split = self.scatterer(self.lengths[step])
            self.seconds.append(split.seconds)
            for group in split.of_rank(self.rank):
                yield step[group.sequences].tolist()


@pytest.fixture(scope="module")
def scatterer() -> SequenceScatterer:
    return SequenceScatterer.of("llama-3.1-8b", f"dgx-h100:{RANKS}")


def lengths_of_steps(scatterer: SequenceScatterer, steps: int) -> IntArray:
    return drawn("wikipedia", steps * SEQUENCES, seed=0, longest=int(scatterer.costs.most_tokens.max()))


def test_a_rank_is_driven_for_a_hundred_steps(scatterer: SequenceScatterer, capsys: pytest.CaptureFixture[str]) -> None:
    sampler = ScatterSampler(lengths_of_steps(scatterer, STEPS), rank=0, scatterer=scatterer)
    groups = list(sampler)
    assert len(sampler.seconds) == STEPS
    given = [at for group in groups for at in group]
    assert len(given) == len(set(given))
    with capsys.disabled():
        sys.stdout.write(f"\n{STEPS} steps: a split takes {np.median(sampler.seconds) * 1e3:.1f} ms\n")


def test_all_ranks_together_are_given_each_sequence_once(scatterer: SequenceScatterer) -> None:
    lengths = lengths_of_steps(scatterer, STEPS_OF_ALL_RANKS)
    given = [list(ScatterSampler(lengths, rank=rank, scatterer=scatterer)) for rank in range(RANKS)]
    # The ranks of a group are given the same list; so many of them as the group has ranks.
    shared = Counter(tuple(group) for of_rank in given for group in of_rank)
    assert sorted(at for group in shared for at in group) == list(range(len(lengths)))
    assert set(shared.values()) <= {1, 2, 4, 8}
