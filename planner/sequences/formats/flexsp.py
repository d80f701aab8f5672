"""FlexSP's: for each micro-batch [(degree, [lengths])], a pair a group."""

import json
from collections.abc import Sequence

from meshwright.planner.sequences.scattered import Scattered


def line(split: Scattered, lengths: Sequence[int]) -> str:
    """Give a step."""
    return json.dumps(
        [
            [[group.degree, [int(lengths[at]) for at in group.sequences]] for group in groups]
            for groups in split.micro_batches
        ]
    )
