"""What is asked: train this model on this cluster with this software, at this batch."""

from dataclasses import dataclass

from meshwright.catalog.precision import Precision
from meshwright.catalog.stack_entry import StackEntry
from meshwright.costmodels.transformer import Transformer
from meshwright.hardware.cluster import Cluster


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training job. global_batch is in sequences of sequence_length tokens, for one optimizer step.

    optimizer_parties: beside a layout's own shards, over how many clusters that train the same parameters the
    optimizer's states are cut (island_links.py).
    """

    model: Transformer
    cluster: Cluster
    stack: StackEntry
    precision: Precision
    global_batch: int
    sequence_length: int
    optimizer_parties: int = 1

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step sees."""
        return self.global_batch * self.sequence_length
