"""verl's: of each rank the indices of its samples, over the whole step."""

import json
from collections.abc import Sequence

from meshwright.catalog.errors import InputError
from meshwright.planner.sequences.scattered import Scattered


def line(split: Scattered, lengths: Sequence[int]) -> str:  # noqa: ARG001 - the signature of a format
    """Give a step: [ranks][samples]. Raises InputError where ranks share a sample."""
    ranks: list[list[int]] = [[] for _ in range(split.ranks)]
    for groups in split.micro_batches:
        for group in groups:
            if group.degree > 1:
                raise InputError(
                    f"sequence {int(group.sequences[0])} is shared by {group.degree} ranks, and verl splits none",
                    path="--format",
                    hint="--max-degree 1 keeps each on one",
                )
            ranks[group.first_rank].extend(group.sequences.tolist())
    return json.dumps([sorted(samples) for samples in ranks])
