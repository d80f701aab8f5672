"""Megatron-Core's `sample_id_groups`: for each micro-batch, of each rank of data x context parallelism its samples.

The ranks of a group have the same samples, of which each computes its part.
"""

import json
from collections.abc import Sequence

from meshwright.planner.sequences.scattered import Scattered


def line(split: Scattered, lengths: Sequence[int]) -> str:  # noqa: ARG001 - the signature of a format
    """Give a step: [micro_batches][ranks][samples]."""
    return json.dumps(sample_id_groups(split))


def sample_id_groups(split: Scattered) -> list[list[list[int]]]:
    """Give the samples of each rank in each micro-batch, none for a rank without a group."""
    found = []
    for groups in split.micro_batches:
        ranks: list[list[int]] = [[] for _ in range(split.ranks)]
        for group in groups:
            for rank in range(group.first_rank, group.first_rank + group.degree):
                ranks[rank] = group.sequences.tolist()
        found.append(ranks)
    return found
